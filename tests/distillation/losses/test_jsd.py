import math

import pytest
import torch

from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.losses.jsd import jsd
from hf_shrink.distillation.losses.reverse_kl import reverse_kl
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Teacher (1/2, 1/2), student (1/4, 3/4), mixture (3/8, 5/8)."""
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    from_teacher = 0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)
    from_student = 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    expected = 0.5 * from_teacher + 0.5 * from_student
    assert jsd(student, teacher, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_reference_in_double_precision(temperature, beta):
    """Unequal shares tell the teacher's part of the mixture from the student's."""
    student, teacher = pair(6, 9)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    m = beta * p + (1 - beta) * q
    expected = temperature**2 * (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(-1)
    assert_reference(jsd, student, teacher, expected, temperature=temperature, beta=beta)
    swapped = beta * q + (1 - beta) * p
    other = temperature**2 * (beta * p * (p / swapped).log() + (1 - beta) * q * (q / swapped).log()).sum(-1)
    assert beta == 0.5 or (other - expected).abs().max() > 1e-2


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("beta", "limit"), [(0, forward_kl), (0.0, forward_kl), (1, reverse_kl), (1.0, reverse_kl)])
def test_its_ends_are_forward_and_reverse_kl_to_the_bit(beta, limit, temperature):
    student, teacher = pair(6, 9)
    value = jsd(student, teacher, beta=beta, temperature=temperature)
    assert torch.equal(value, limit(student, teacher, temperature=temperature))


def test_beside_its_ends_it_is_a_share_of_the_divergence_there():
    """The formula vanishes towards its ends: divided by the share it nears the divergence, undivided it nears 0."""
    student, teacher = pair(6, 9)
    low, high = jsd(student, teacher, beta=1e-4), jsd(student, teacher, beta=1 - 1e-4)
    torch.testing.assert_close(low / 1e-4, forward_kl(student, teacher), rtol=1e-2, atol=0)
    torch.testing.assert_close(high / 1e-4, reverse_kl(student, teacher), rtol=1e-2, atol=0)


def test_it_stays_below_its_bound_where_forward_kl_runs_away():
    """Student and teacher sure of different classes: ln 2 at beta ½ whatever the logits, times temperature squared."""
    student, teacher = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert jsd(student, teacher, temperature=3.0).item() == pytest.approx(9 * math.log(2), rel=1e-6)
    assert forward_kl(student, teacher, temperature=3.0).item() > 1e4


def test_small_differences_over_a_vocabulary_are_not_rounding():
    """A mixture whose log is rounded apart from the student's is off by ten times the divergence here."""
    _, teacher = pair(4, 50_000)
    student, teacher = (teacher + 1e-3 * pair(4, 50_000, seed=1)[0]).float(), teacher.float()
    exact = jsd(student.double(), teacher.double(), temperature=1.0, beta=0.1)
    assert exact.max() < 1e-7
    value = jsd(student, teacher, temperature=1.0, beta=0.1).double()
    torch.testing.assert_close(value, exact, atol=2e-8, rtol=0)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_near_the_teacher_it_is_a_known_share_of_forward_kl(beta):
    _, teacher = pair(6, 9)
    student = teacher + 1e-3 * pair(6, 9, seed=1)[0]
    share = jsd(student, teacher, beta=beta) / forward_kl(student, teacher)
    torch.testing.assert_close(share, torch.full_like(share, beta * (1 - beta)), rtol=1e-2, atol=0)


@pytest.mark.parametrize("beta", [1e-300, 1e-17, 1 - 1e-16])
def test_a_beta_beside_its_ends_is_finite(beta):
    assert torch.isfinite(jsd(*pair(6, 9), beta=beta)).all()


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ShrinkError, match="`beta`"):
        jsd(*pair(6, 9), beta=beta)
