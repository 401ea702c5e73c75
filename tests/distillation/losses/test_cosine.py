import math

import pytest
import torch

from hf_shrink.distillation.losses.cosine import cosine
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Right angle 1, half of it 1 - 1/√2, opposite 2."""
    student = torch.tensor([[0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]])
    value = cosine(student, torch.tensor([[1.0, 0.0]]).expand(3, 2))
    torch.testing.assert_close(value, torch.tensor([1.0, 1 - 1 / math.sqrt(2), 2.0]), atol=1e-6, rtol=0)


def test_reference_in_double_precision():
    student, teacher = pair(6, 9)
    expected = [1 - (s @ t) / ((s @ s) * (t @ t)).sqrt() for s, t in zip(student, teacher, strict=True)]
    assert_reference(cosine, student, teacher, torch.stack(expected))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_length_of_the_logits_is_free(scale):
    student, teacher = pair(6, 9)
    torch.testing.assert_close(cosine(scale * student, teacher), cosine(student, teacher))
    torch.testing.assert_close(cosine(student, scale * teacher), cosine(student, teacher))


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(cosine(student, teacher, temperature=1.0), cosine(student, teacher, temperature=8.0))


def test_zero_logits_lead_to_the_teacher_by_a_step_of_ordinary_size():
    """An epsilon under the fraction would make it a step of a million and more."""
    student = torch.zeros(2, 3, requires_grad=True)
    value = cosine(student, torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    value.sum().backward()
    assert value.tolist() == [1.0, 1.0]
    torch.testing.assert_close(student.grad, torch.tensor([[-0.6, -0.8, 0.0], [0.0, 0.0, 0.0]]))
