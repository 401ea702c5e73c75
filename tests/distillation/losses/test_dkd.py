import math

import pytest
import torch

from hf_shrink.distillation.losses.dkd import dkd
from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair

LABELS = torch.tensor([0, 3, 8, 8, 1, 5])


def test_value_by_hand():
    """Teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2), target 0.

    Target against rest: (1/2, 1/2) and (1/4, 3/4), ½ ln 4/3. Among the rest: (1/2, 1/2) and (1/3, 2/3), ½ ln 9/8.
    """
    teacher, student = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    value = dkd(student, teacher, labels=torch.tensor([0]), temperature=1.0)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3) + 8 * 0.5 * math.log(9 / 8), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_reference_in_double_precision(temperature):
    student, teacher = pair(6, 9)
    expected = []
    for s, t, label in zip(student, teacher, LABELS, strict=True):
        q, p = (s / temperature).exp(), (t / temperature).exp()
        q, p = q / q.sum(), p / p.sum()
        others = torch.arange(9) != label
        target_part = p[label] * (p[label] / q[label]).log()
        target_part += (1 - p[label]) * ((1 - p[label]) / (1 - q[label])).log()
        p_others, q_others = p[others] / p[others].sum(), q[others] / q[others].sum()
        other_part = (p_others * (p_others / q_others).log()).sum()
        expected.append(temperature**2 * (2.0 * target_part + 3.0 * other_part))
    options = {"labels": LABELS, "temperature": temperature, "target_weight": 2.0, "non_target_weight": 3.0}
    assert_reference(dkd, student, teacher, torch.stack(expected), single_atol=2e-5, **options)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_parts_make_up_forward_kl(temperature):
    student, teacher = pair(6, 9)
    target = dkd(student, teacher, labels=LABELS, temperature=temperature, non_target_weight=0.0)
    others = dkd(student, teacher, labels=LABELS, temperature=temperature, target_weight=0.0, non_target_weight=1.0)
    p = (teacher / temperature).softmax(-1).gather(-1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(target + (1 - p) * others, forward_kl(student, teacher, temperature=temperature))
    both = dkd(student, teacher, labels=LABELS, temperature=temperature, non_target_weight=1.0)
    torch.testing.assert_close(both, target + others)


def test_without_a_label_the_teachers_likeliest_class_is_the_target():
    student, teacher = pair(6, 9)
    likeliest = dkd(student, teacher, labels=teacher.argmax(-1))
    assert torch.equal(dkd(student, teacher), likeliest)
    some = LABELS.clone()
    some[:3] = -100
    value = dkd(student, teacher, labels=some)
    assert torch.equal(value[:3], likeliest[:3])
    assert torch.equal(value[3:], dkd(student, teacher, labels=LABELS)[3:])
    other = LABELS[3:] != teacher.argmax(-1)[3:]
    assert other.sum() == 2
    assert not torch.isclose(value[3:], likeliest[3:])[other].any()


def test_a_sure_teacher_still_teaches_the_other_classes():
    """In forward KL its other classes weigh nothing; here they do, and nothing is infinite."""
    teacher = torch.tensor([[200.0, 3.0, 0.0]])
    gradients = []
    for loss in (forward_kl, dkd):
        student = torch.tensor([[200.0, 0.0, 3.0]], requires_grad=True)
        loss(student, teacher, temperature=1.0).sum().backward()
        gradients.append(student.grad)
    assert gradients[0].abs().max() == 0
    assert gradients[1][0, 1] < -1
    assert gradients[1][0, 2] > 1
    assert torch.isfinite(gradients[1]).all()


def test_two_classes_leave_the_target_part():
    student, teacher = pair(6, 2)
    torch.testing.assert_close(dkd(student, teacher), forward_kl(student, teacher))


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(6, 9), torch.zeros(6), torch.zeros(5, dtype=torch.long), torch.zeros(6, 1, dtype=torch.long)],
)
def test_labels_of_another_task_are_refused(labels):
    with pytest.raises(ShrinkError, match="`labels`"):
        dkd(*pair(6, 9), labels=labels)


def test_a_single_class_is_refused():
    with pytest.raises(ShrinkError, match="at least 2 classes"):
        dkd(*pair(6, 1))


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["target_weight", "non_target_weight"])
def test_a_senseless_weight_is_refused(name, weight):
    with pytest.raises(ShrinkError, match=f"`{name}`"):
        dkd(*pair(6, 9), **{name: weight})
