"""What every loss in LOSSES must hold; a new one is covered when it is registered."""

import inspect
import itertools

import pytest
import torch

from hf_shrink.distillation import LOSSES
from hf_shrink.errors import ShrinkError

SHAPES = {"positions": [(4, 5), (2, 3, 5)], "rows": [(4, 5), (2, 3)]}
OUTPUTS = {"classes", "spans", "labels", "values", "features", "hidden", "attention", "relations"}
OVER_KEYS = {"attention", "relations"}
IN_A_SOFTMAX = {"classes", "spans", *OVER_KEYS}
BEYOND_A_SOFTMAX = [name for name in LOSSES if set(LOSSES[name].facts["outputs"]) - IN_A_SOFTMAX]
MASKED = [name for name in LOSSES if set(LOSSES[name].facts["outputs"]) & OVER_KEYS]


def tensor(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def classes_for(shape):
    """A class for each position, and none for the first."""
    classes = torch.arange(torch.Size(shape[:-1]).numel()).reshape(shape[:-1]) % shape[-1]
    classes.view(-1)[0] = -100
    return classes


def labels_for(outputs, shape):
    """What a batch of that task holds: a class a position, a 0 or 1 a label, a number a value."""
    if outputs == "labels":
        return (tensor(*shape, seed=2) > 0).float()
    return tensor(*shape, seed=2) if outputs == "values" else classes_for(shape)


def shapes_for(method):
    return SHAPES[method.facts["compares"]]


@pytest.fixture(params=list(LOSSES))
def method(request):
    return LOSSES[request.param]


@pytest.fixture
def loss(method):
    return method.function


def test_it_names_its_paper_and_explains_itself(method):
    assert method.paper.startswith(("arXiv:", "https://"))
    assert method.summary.endswith(".")
    assert "Args:" in inspect.getdoc(method.function)
    assert "Returns:" in inspect.getdoc(method.function)


def test_it_has_the_options_that_all_share(method):
    assert {"labels": None, "temperature": 2.0}.items() <= method.options.items()


def test_it_says_what_it_compares(method):
    assert method.facts["compares"] in SHAPES
    outputs = method.facts["outputs"]
    assert isinstance(outputs, tuple)
    assert outputs
    assert set(outputs) <= OUTPUTS
    assert len(set(outputs)) == len(outputs)


def test_there_is_a_loss_for_every_kind_of_outputs():
    assert {outputs for method in LOSSES.values() for outputs in method.facts["outputs"]} == OUTPUTS


def test_rows_meet_only_in_the_losses_that_say_so(method):
    student, teacher = tensor(4, 5, seed=0), tensor(4, 5, seed=1)
    whole = method.function(student, teacher)
    parts = torch.cat([method.function(student[rows], teacher[rows]) for rows in (slice(2), slice(2, 4))])
    alone = torch.isclose(whole, parts, atol=1e-6, rtol=1e-6)
    assert alone.all() if method.facts["compares"] == "positions" else not alone.any()


@pytest.mark.parametrize("name", BEYOND_A_SOFTMAX)
def test_a_constant_on_all_outputs_counts_where_no_softmax_takes_it_out(name):
    """A loss that leaves it out would silently teach a multi-label or regression student nothing about it."""
    teacher = tensor(4, 5, seed=1)
    assert (LOSSES[name].function(teacher + 3, teacher) > 1e-2).all()


def test_it_gives_one_value_a_position(method):
    for shape in shapes_for(method):
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


def test_no_position_at_all_sums_to_zero_with_a_gradient(method):
    student = torch.zeros(0, 5, requires_grad=True)
    if method.facts["compares"] == "rows":
        with pytest.raises(ShrinkError, match="at least 2 rows, got 0"):
            method.function(student, torch.zeros(0, 5))
        return
    value = method.function(student, torch.zeros(0, 5))
    assert value.shape == (0,)
    value.sum().backward()
    assert value.sum().item() == 0
    assert student.grad.shape == (0, 5)


def test_other_shapes_are_refused(method):
    student, teacher = list(inspect.signature(method.function).parameters)[:2]
    assert student.replace("student_", "teacher_") == teacher
    other = {"positions": (4, 6), "rows": (3, 5)}[method.facts["compares"]]
    with pytest.raises(ShrinkError, match=f"`{teacher}`"):
        method.function(tensor(4, 5, seed=0), tensor(*other, seed=1))


def test_shapes_that_would_broadcast_are_refused(method):
    for shape in {"positions": [(1, 5), (4, 1)], "rows": [(1, 5)]}[method.facts["compares"]]:
        with pytest.raises(ShrinkError, match="`teacher_"):
            method.function(tensor(4, 5, seed=0), tensor(*shape, seed=1))


def test_labels_of_its_task_are_taken(method):
    for shape, outputs in itertools.product(shapes_for(method), method.facts["outputs"]):
        student, teacher = tensor(*shape, seed=0), tensor(*shape, seed=1)
        value = method.function(student, teacher, labels=labels_for(outputs, shape))
        assert value.shape == shape[:-1]
        assert torch.isfinite(value).all()


def test_the_gradient_keeps_its_size_at_any_temperature(loss):
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        student = tensor(64, 20, seed=0).requires_grad_()
        loss(student, tensor(64, 20, seed=1), temperature=temperature).mean().backward()
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 2


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_senseless_temperature_is_refused(loss, temperature):
    with pytest.raises(ShrinkError, match="`temperature`"):
        loss(tensor(4, 5, seed=0), tensor(4, 5, seed=1), temperature=temperature)


def with_mask(scores, keys):
    scores = scores.clone()
    scores[..., keys] = -torch.inf
    return scores.requires_grad_()


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_masked_key_is_as_if_it_were_not_there(name, dtype):
    """Else the value would depend on how far a batch is padded."""
    loss, student, teacher = LOSSES[name].function, *(tensor(2, 3, 4, 5, seed=s, dtype=dtype) for s in (0, 1))
    padded = with_mask(student, [1, 4])
    value = loss(padded, with_mask(teacher, [1, 4]))
    shorter = student[..., [0, 2, 3]].requires_grad_()
    expected = loss(shorter, teacher[..., [0, 2, 3]])
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(padded.grad[..., [0, 2, 3]], shorter.grad)
    assert (padded.grad[..., [1, 4]] == 0).all()


@pytest.mark.parametrize("name", MASKED)
def test_a_key_that_one_of_the_two_masks_is_left_out_of_both(name):
    loss, student, teacher = LOSSES[name].function, tensor(2, 4, 5, seed=0), tensor(2, 4, 5, seed=1)
    expected = loss(with_mask(student, [1, 4]), with_mask(teacher, [1, 4]))
    torch.testing.assert_close(loss(with_mask(student, [1]), with_mask(teacher, [4])), expected)


@pytest.mark.parametrize("name", MASKED)
def test_without_any_key_it_is_zero_with_a_gradient_of_zero(name):
    student = with_mask(tensor(2, 4, 5, seed=0), slice(None))
    value = LOSSES[name].function(student, with_mask(tensor(2, 4, 5, seed=1), slice(None)))
    value.sum().backward()
    assert torch.equal(value, torch.zeros(2, 4))
    assert torch.equal(student.grad, torch.zeros(2, 4, 5))
