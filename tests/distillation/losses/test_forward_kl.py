import math

import pytest
import torch
import torch.nn.functional as F

from hf_shrink.distillation.losses.forward_kl import forward_kl


def test_value_by_hand():
    """Teacher (1/2, 1/2), student (1/4, 3/4): KL = ½ ln 2 + ½ ln ⅔ = ½ ln 4/3."""
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    assert forward_kl(student, teacher, temperature=1.0).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_reference_in_double_precision(temperature):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = F.softmax(teacher / temperature, -1), F.softmax(student / temperature, -1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(forward_kl(student, teacher, temperature=temperature), expected, atol=1e-6, rtol=0)
    single = forward_kl(student.float(), teacher.float(), temperature=temperature)
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=0)


def test_it_is_the_forward_direction():
    """The teacher weighs the classes: forward and reverse differ, and only one of them is asked for."""
    student, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    forward = forward_kl(student, teacher, temperature=1.0).item()
    p = F.softmax(teacher[0], -1)
    q = F.softmax(student[0], -1)
    assert forward == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)
    assert forward != pytest.approx((q * (q / p).log()).sum().item(), abs=1e-2)
