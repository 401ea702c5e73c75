"""What every loss in LOSSES must hold; a new one is covered when it is registered."""

import inspect

import pytest
import torch

from hf_shrink.distillation import LOSSES
from hf_shrink.errors import ShrinkError


def logits(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(params=list(LOSSES))
def loss(request):
    return LOSSES[request.param].function


def test_it_names_its_paper_and_explains_itself(loss):
    method = next(m for m in LOSSES.values() if m.function is loss)
    assert method.paper.startswith(("arXiv:", "https://"))
    assert method.summary.endswith(".")
    assert "Args:" in inspect.getdoc(loss)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5)])
def test_it_gives_one_value_a_position(loss, shape):
    value = loss(logits(*shape, seed=0), logits(*shape, seed=1), temperature=2.0)
    assert value.shape == shape[:-1]
    assert torch.isfinite(value).all()
    assert (value > 0).all()


def test_it_is_zero_where_student_and_teacher_agree(loss):
    same = logits(4, 5, seed=0)
    torch.testing.assert_close(loss(same, same.clone(), temperature=2.0), torch.zeros(4), atol=1e-6, rtol=0)


def test_its_gradient_leads_to_the_teacher(loss):
    student, teacher = logits(4, 5, seed=0).requires_grad_(), logits(4, 5, seed=1)
    before = loss(student, teacher, temperature=2.0).sum()
    before.backward()
    after = loss(student - 0.05 * student.grad, teacher, temperature=2.0).sum()
    assert after < before


def test_half_precision_is_computed_in_fp32(loss):
    student, teacher = logits(4, 50, seed=0, dtype=torch.bfloat16), logits(4, 50, seed=1, dtype=torch.bfloat16)
    value = loss(student, teacher, temperature=2.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float(), temperature=2.0))


def test_the_gradient_keeps_its_size_at_any_temperature(loss):
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        student = logits(64, 20, seed=0).requires_grad_()
        loss(student, logits(64, 20, seed=1), temperature=temperature).mean().backward()
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 2


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_senseless_temperature_is_refused(loss, temperature):
    with pytest.raises(ShrinkError, match="`temperature`"):
        loss(logits(4, 5, seed=0), logits(4, 5, seed=1), temperature=temperature)


def test_other_shapes_are_refused(loss):
    with pytest.raises(ShrinkError, match="`teacher_logits`"):
        loss(logits(4, 5, seed=0), logits(4, 6, seed=1), temperature=2.0)
