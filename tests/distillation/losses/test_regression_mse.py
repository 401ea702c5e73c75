import pytest
import torch

from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.losses.regression_mse import regression_mse
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    value = regression_mse(torch.tensor([[1.0, 5.0], [2.0, 2.0]]), torch.tensor([[4.0, 1.0], [2.0, 2.0]]))
    assert value.tolist() == [12.5, 0.0]


def test_reference_in_double_precision():
    student, teacher = pair(6, 3)
    expected = [sum((s - t) ** 2 for s, t in zip(*row, strict=True)) / 3 for row in zip(student, teacher, strict=True)]
    assert_reference(regression_mse, student, teacher, torch.stack(expected))


def test_temperature_has_no_effect():
    student, teacher = pair(6, 1)
    assert torch.equal(
        regression_mse(student, teacher, temperature=1.0), regression_mse(student, teacher, temperature=8.0)
    )


def test_a_single_value_is_taught_where_a_softmax_would_teach_nothing():
    student, teacher = pair(6, 1)
    assert (regression_mse(student, teacher) > 0).all()
    assert forward_kl(student, teacher).abs().max() == 0


def test_the_teachers_error_is_copied_whatever_the_labels_say():
    student, teacher = pair(6, 1)
    value = regression_mse(student, teacher + 10, labels=student)
    assert (value > 20).all()
    assert torch.equal(value, regression_mse(student, teacher + 10))


def test_values_without_their_last_axis_are_not_spread_over_the_rows():
    """Shapes (6, 1) and (6,) would broadcast to all pairs of rows."""
    student, teacher = pair(6, 1)
    with pytest.raises(ShrinkError, match="`teacher_values`.*same values"):
        regression_mse(student, teacher[:, 0])
