"""What every loss in LOSSES must hold, by what it compares; a new one is covered when it is registered."""

import inspect

import pytest
import torch

from hf_shrink.distillation import LOSSES
from hf_shrink.errors import ShrinkError

SHAPES = {"logits": [(4, 5), (2, 3, 5)], "hidden": [(4, 5), (2, 3, 5)], "rows": [(4, 5)]}  # by what a loss compares
OTHER = {"logits": (4, 6), "hidden": (4, 1), "rows": (3, 5)}  # does not go with (4, 5)
LOGITS = [name for name, method in LOSSES.items() if method.facts["compares"] == "logits"]
BY_POSITION = [name for name, method in LOSSES.items() if method.facts["compares"] != "rows"]


def tensor(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def labels_for(method, shape):
    classes = torch.arange(torch.Size(shape[:-1]).numel()).reshape(shape[:-1]) % shape[-1]
    if method.facts["outputs"] == "classes":
        classes.view(-1)[0] = -100
        return classes
    return torch.ones(shape)


@pytest.fixture(params=list(LOSSES))
def method(request):
    return LOSSES[request.param]


@pytest.fixture
def loss(method):
    return method.function


@pytest.fixture(params=LOGITS)
def logit_method(request):
    return LOSSES[request.param]


@pytest.fixture
def logit_loss(logit_method):
    return logit_method.function


def test_it_names_its_paper_and_explains_itself(method):
    assert method.paper.startswith(("arXiv:", "https://"))
    assert method.summary.endswith(".")
    assert "Args:" in inspect.getdoc(method.function)
    assert "Returns:" in inspect.getdoc(method.function)


def test_it_says_what_it_compares(method):
    assert method.facts["compares"] in SHAPES
    if method.facts["compares"] == "logits":
        assert method.facts["outputs"] in {"classes", "labels", "values"}
        assert {"labels": None, "temperature": 2.0}.items() <= method.options.items()
    else:
        assert "outputs" not in method.facts
        assert not {"labels", "temperature"} & set(method.options)


def test_it_gives_one_value_a_position(method):
    for shape in SHAPES[method.facts["compares"]]:
        value = method.function(tensor(*shape, seed=0), tensor(*shape, seed=1))
        assert value.shape == shape[:-1]
        assert torch.isfinite(value).all()
        assert (value > 0).all()


def test_it_is_zero_where_student_and_teacher_agree(loss):
    same = tensor(4, 5, seed=0)
    torch.testing.assert_close(loss(same, same.clone()), torch.zeros(4), atol=1e-6, rtol=0)


def test_its_gradient_leads_to_the_teacher(loss):
    student, teacher = tensor(4, 5, seed=0).requires_grad_(), tensor(4, 5, seed=1)
    before = loss(student, teacher).sum()
    before.backward()
    after = loss(student - 0.02 * student.grad, teacher).sum()
    assert after < before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(loss, dtype):
    student, teacher = tensor(4, 50, seed=0, dtype=dtype), tensor(4, 50, seed=1, dtype=dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))


def test_double_precision_is_kept(loss):
    student, teacher = tensor(4, 50, seed=0, dtype=torch.float64), tensor(4, 50, seed=1, dtype=torch.float64)
    value = loss(student, teacher)
    assert value.dtype == torch.float64
    torch.testing.assert_close(loss(student.float(), teacher.float()).double(), value, atol=1e-5, rtol=1e-5)
    assert (loss(student.float(), teacher.float()).double() != value).any()


def test_autocast_does_not_lower_the_precision(loss):
    student, teacher = tensor(4, 50, seed=0), tensor(4, 50, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, loss(student, teacher), atol=0, rtol=0)


@pytest.mark.parametrize("gap", ["opposite", "student_flat", "teacher_flat", "equal"])
def test_extreme_inputs_stay_finite(loss, gap):
    sure = 1e4 * tensor(4, 5, seed=0).sign()  # (4, 5): several classes tie at ±1e4
    sure[0] = torch.tensor([1e4, -1e4, -1e4, -1e4, -1e4])
    flat = torch.zeros(4, 5)
    student, teacher = {
        "opposite": (-sure, sure),
        "student_flat": (flat, sure),
        "teacher_flat": (sure, flat),
        "equal": (sure, sure),
    }[gap]
    student = student.clone().requires_grad_()
    value = loss(student, teacher)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert (value >= -1e-6).all()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1e5


@pytest.mark.parametrize("name", BY_POSITION)
def test_no_position_at_all_sums_to_zero_with_a_gradient(name):
    student = torch.zeros(0, 5, requires_grad=True)
    value = LOSSES[name].function(student, torch.zeros(0, 5))
    assert value.shape == (0,)
    value.sum().backward()
    assert value.sum().item() == 0
    assert student.grad.shape == (0, 5)


def test_other_shapes_are_refused(method):
    name = list(inspect.signature(method.function).parameters)[1]
    with pytest.raises(ShrinkError, match=f"`{name}`"):
        method.function(tensor(4, 5, seed=0), tensor(*OTHER[method.facts["compares"]], seed=1))


def test_labels_of_its_task_are_taken(logit_method):
    for shape in SHAPES["logits"]:
        student, teacher = tensor(*shape, seed=0), tensor(*shape, seed=1)
        value = logit_method.function(student, teacher, labels=labels_for(logit_method, shape))
        assert value.shape == shape[:-1]
        assert torch.isfinite(value).all()


def test_the_gradient_keeps_its_size_at_any_temperature(logit_loss):
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        student = tensor(64, 20, seed=0).requires_grad_()
        logit_loss(student, tensor(64, 20, seed=1), temperature=temperature).mean().backward()
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 2


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_senseless_temperature_is_refused(logit_loss, temperature):
    with pytest.raises(ShrinkError, match="`temperature`"):
        logit_loss(tensor(4, 5, seed=0), tensor(4, 5, seed=1), temperature=temperature)
