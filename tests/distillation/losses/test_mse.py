import pytest
import torch

from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.losses.mse import mse
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    assert mse(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 2.0, 1.0]])).item() == pytest.approx(5 / 3)


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 9)
    expected = sum((student[..., c] - teacher[..., c]) ** 2 for c in range(9)) / 9
    assert_reference(mse, student, teacher, expected)


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(mse(student, teacher, temperature=1.0), mse(student, teacher, temperature=8.0))


def test_it_sees_the_constant_that_softmax_leaves_out():
    _, teacher = pair(6, 9)
    torch.testing.assert_close(mse(teacher + 3, teacher), torch.full((6,), 9.0, dtype=torch.float64))
    assert forward_kl(teacher + 3, teacher).abs().max() < 1e-9
