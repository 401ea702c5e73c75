import pytest
import torch

from hf_shrink.distillation.losses.attention_kl import attention_kl
from hf_shrink.distillation.losses.attention_mse import attention_mse
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """(1 + 9) / 2 over the two keys that are there, and a query that agrees."""
    student = torch.tensor([[1.0, -torch.inf, 0.0], [5.0, -torch.inf, 6.0]])
    teacher = torch.tensor([[2.0, -torch.inf, 3.0], [5.0, -torch.inf, 6.0]])
    assert attention_mse(student, teacher).tolist() == [5.0, 0.0]


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 4, 6)
    squares = torch.einsum("...k,...k->...", student, student) + torch.einsum("...k,...k->...", teacher, teacher)
    assert_reference(
        attention_mse, student, teacher, (squares - 2 * torch.einsum("...k,...k->...", student, teacher)) / 6
    )


def test_a_constant_counts_though_attention_is_the_same_with_it():
    student, teacher = pair(2, 4, 6)
    assert attention_kl(teacher + 3, teacher).abs().max() < 1e-9
    torch.testing.assert_close(attention_mse(teacher + 3, teacher), torch.full((2, 4), 9.0, dtype=torch.float64))
    assert (attention_mse(student + 30, teacher) > attention_mse(student, teacher)).all()


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(
        attention_mse(student, teacher, temperature=1.0), attention_mse(student, teacher, temperature=8.0)
    )


def test_other_heads_are_refused_with_the_way_out():
    with pytest.raises(ShrinkError, match="equally many heads"):
        attention_mse(torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 4, 4))
