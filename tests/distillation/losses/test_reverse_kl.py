import math

import pytest
import torch

from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.losses.reverse_kl import reverse_kl
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Teacher (1/2, 1/2), student (1/4, 3/4): KL = ¼ ln ½ + ¾ ln 3/2."""
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert reverse_kl(student, teacher, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_reference_in_double_precision(temperature):
    student, teacher = pair(6, 9)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = temperature**2 * (q * (q / p).log()).sum(-1)
    assert_reference(reverse_kl, student, teacher, expected, temperature=temperature)


def test_it_is_forward_kl_with_the_models_swapped():
    student, teacher = pair(6, 9)
    torch.testing.assert_close(reverse_kl(student, teacher), forward_kl(teacher, student))


def test_it_prefers_one_of_the_teachers_classes_to_all_classes():
    """The silent failure is the direction: only reverse KL would rather leave a class out than spread beyond."""
    teacher = torch.tensor([[5.0, -5.0, -5.0, 5.0]])
    one, all_of_them = torch.tensor([[5.0, -5.0, -5.0, -5.0]]), torch.zeros(1, 4)
    assert reverse_kl(one, teacher, temperature=1.0) < reverse_kl(all_of_them, teacher, temperature=1.0)
    assert forward_kl(one, teacher, temperature=1.0) > forward_kl(all_of_them, teacher, temperature=1.0)
