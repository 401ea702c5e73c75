import math

import pytest
import torch

from hf_shrink.distillation.losses.hidden_cosine import hidden_cosine
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Tokens at a right angle 1, at half of it 1 - 1/√2, opposite 2."""
    student = torch.tensor([[[0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]]])
    value = hidden_cosine(student, torch.tensor([[[1.0, 0.0]]]).expand(1, 3, 2))
    torch.testing.assert_close(value, torch.tensor([[1.0, 1 - 1 / math.sqrt(2), 2.0]]), atol=1e-6, rtol=0)


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 16)
    dot, s, t = (torch.einsum("btd,btd->bt", *p) for p in ((student, teacher), (student,) * 2, (teacher,) * 2))
    assert_reference(hidden_cosine, student, teacher, 1 - dot / (s * t).sqrt())


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_length_of_the_vectors_is_free(scale):
    """What it cannot see, a student has no reason to learn: its gradient along the vector is 0."""
    student, teacher = pair(6, 9)
    student.requires_grad_()
    value = hidden_cosine(student, teacher)
    torch.testing.assert_close(hidden_cosine(scale * student, teacher), value)
    torch.testing.assert_close(hidden_cosine(student, scale * teacher), value)
    value.sum().backward()
    along = (student.grad * student.detach()).sum(-1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)
    assert (student.grad.norm(dim=-1) > 1e-2).all()


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(
        hidden_cosine(student, teacher, temperature=1.0), hidden_cosine(student, teacher, temperature=8.0)
    )


def test_a_zero_vector_leads_to_the_teacher_by_a_step_of_ordinary_size():
    """Vectors of padding may be zero in one model and not in the other."""
    student = torch.zeros(1, 2, 3, requires_grad=True)
    value = hidden_cosine(student, torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]))
    value.sum().backward()
    assert value.tolist() == [[1.0, 1.0]]
    torch.testing.assert_close(student.grad, torch.tensor([[[-0.6, -0.8, 0.0], [0.0, 0.0, 0.0]]]))


def test_other_widths_are_refused_with_the_way_out():
    with pytest.raises(ShrinkError, match="Project the student's vectors"):
        hidden_cosine(torch.zeros(4, 8), torch.zeros(4, 16))
