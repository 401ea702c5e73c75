import math

import pytest
import torch

from hf_shrink.distillation.losses.binary_kl import binary_kl
from hf_shrink.distillation.losses.forward_kl import forward_kl
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Label 1: teacher ½, student ¼, ½ ln 2 + ½ ln ⅔ = ½ ln 4/3. Label 2 agrees. The mean halves it."""
    student, teacher = torch.tensor([[-math.log(3), 1.0]]), torch.tensor([[0.0, 1.0]])
    assert binary_kl(student, teacher, temperature=1.0).item() == pytest.approx(0.25 * math.log(4 / 3), abs=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_reference_in_double_precision(temperature):
    student, teacher = pair(2, 3, 9)
    q, p = (1 / (1 + (-logits / temperature).exp()) for logits in (student, teacher))
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    expected = temperature**2 * divergence.sum(-1) / 9
    assert_reference(binary_kl, student, teacher, expected, temperature=temperature)


def test_it_is_the_forward_direction():
    """Teacher ½, student ¼, as above, and the two changed about: ¼ ln ½ + ¾ ln 3/2."""
    quarter, half = torch.tensor([[-math.log(3)]]), torch.tensor([[0.0]])
    assert binary_kl(quarter, half, temperature=1.0).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)
    reverse = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert binary_kl(half, quarter, temperature=1.0).item() == pytest.approx(reverse, abs=1e-6)


def test_each_label_is_a_softmax_over_yes_and_no():
    student, teacher = pair(6, 9)
    yes_or_no = [torch.stack([logits, torch.zeros_like(logits)], dim=-1) for logits in (student, teacher)]
    torch.testing.assert_close(binary_kl(student, teacher), forward_kl(*yes_or_no).mean(-1))


def test_a_softmax_over_the_labels_would_teach_something_else():
    """It cannot tell all labels from none, and has nothing to say of a single one."""
    none, every = torch.full((1, 4), -5.0), torch.full((1, 4), 5.0)
    assert forward_kl(none, every).abs().item() < 1e-6
    assert binary_kl(none, every).item() > 1
    assert forward_kl(none[:, :1], every[:, :1]).item() == 0
    assert binary_kl(none[:, :1], every[:, :1]).item() > 1


def test_a_label_is_no_rival_of_another():
    """The gradient of a label is its own, whatever the student says of the others."""
    gradients = []
    for other in (-4.0, 4.0):
        student = torch.tensor([[1.0, other]], requires_grad=True)
        binary_kl(student, torch.tensor([[2.0, 0.0]])).sum().backward()
        gradients.append(student.grad[0, 0].item())
    assert gradients[0] == gradients[1] != 0


@pytest.mark.parametrize(("student", "teacher"), [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4)])
def test_large_logits_cost_their_distance_and_stay_finite(student, teacher):
    """Sure of the contrary, the divergence is the student's logit, and its gradient 1."""
    logits = torch.tensor([[student]], requires_grad=True)
    value = binary_kl(logits, torch.tensor([[teacher]]), temperature=1.0)
    value.sum().backward()
    contrary = student != teacher
    assert value.item() == (1e4 if contrary else 0)
    assert abs(logits.grad.item()) == contrary


@pytest.mark.parametrize("sign", [1, -1])
def test_the_tails_are_not_rounded_away(sign):
    """One minus a sigmoid, or a clamp as in the paper's code, would give 0 or infinity in fp32."""
    student, teacher = sign * torch.tensor([[20.0]]), sign * torch.tensor([[30.0]])
    exact = binary_kl(student.double(), teacher.double(), temperature=1.0)
    assert 1e-9 < exact.item() < 1e-8
    torch.testing.assert_close(binary_kl(student, teacher, temperature=1.0).double(), exact, atol=0, rtol=1e-5)


def test_more_labels_do_not_weigh_more():
    student, teacher = pair(6, 1)
    torch.testing.assert_close(binary_kl(student.expand(6, 9), teacher.expand(6, 9)), binary_kl(student, teacher))
