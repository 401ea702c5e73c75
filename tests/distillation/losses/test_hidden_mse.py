import pytest
import torch

from hf_shrink.distillation.losses.hidden_cosine import hidden_cosine
from hf_shrink.distillation.losses.hidden_mse import hidden_mse
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Two tokens of a row: (1 + 0 + 9 + 4) / 4, and one that agrees."""
    student = torch.tensor([[[1.0, 2.0, 0.0, 1.0], [5.0, 6.0, 7.0, 8.0]]])
    teacher = torch.tensor([[[2.0, 2.0, 3.0, -1.0], [5.0, 6.0, 7.0, 8.0]]])
    assert hidden_mse(student, teacher).tolist() == [[3.5, 0.0]]


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 16)
    gap = student - teacher
    assert_reference(hidden_mse, student, teacher, torch.einsum("btd,btd->bt", gap, gap) / 16)


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(hidden_mse(student, teacher, temperature=1.0), hidden_mse(student, teacher, temperature=8.0))


def test_the_length_counts():
    _, teacher = pair(6, 9)
    torch.testing.assert_close(hidden_mse(3 * teacher, teacher), 4 * teacher.square().mean(-1))
    assert hidden_cosine(3 * teacher, teacher).abs().max() < 1e-9


def test_one_great_dimension_outweighs_the_others():
    """Half of its size missed costs more than every other dimension left at 0."""
    _, teacher = pair(6, 768)
    teacher[:, 0] = 100.0
    half, others = teacher.clone(), torch.zeros_like(teacher)
    half[:, 0], others[:, 0] = 50.0, 100.0
    assert (hidden_mse(half, teacher) > 2 * hidden_mse(others, teacher)).all()


def test_other_widths_are_refused_with_the_way_out():
    with pytest.raises(ShrinkError, match="Project the student's vectors"):
        hidden_mse(torch.zeros(4, 8), torch.zeros(4, 16))
