import math

import pytest
import torch

from hf_shrink.distillation.losses.attention_kl import attention_kl
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def test_value_by_hand():
    """Attention (1/4, 3/4) of the teacher against (1/2, 1/2), the third key masked."""
    teacher = torch.tensor([[0.0, math.log(3), -torch.inf]])
    student = torch.tensor([[7.0, 7.0, -torch.inf]])
    torch.testing.assert_close(
        attention_kl(student, teacher), torch.tensor([0.25 * math.log(0.5) + 0.75 * math.log(1.5)])
    )


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 4, 6)
    own, theirs = (s.exp() / s.exp().sum(-1, keepdim=True) for s in (student, teacher))
    assert_reference(attention_kl, student, teacher, torch.einsum("...k,...k->...", theirs, (theirs / own).log()))


def test_it_is_the_teacher_who_weighs_the_keys():
    """A key that the teacher leaves out costs little to look at; one that it looks at costs much to leave out."""
    both, first = torch.tensor([0.0, 0.0]), torch.tensor([0.0, -20.0])
    assert attention_kl(both, first) < 0.7
    assert attention_kl(first, both) > 9


def test_a_constant_on_all_scores_of_a_query_changes_nothing():
    student, teacher = pair(2, 4, 6)
    torch.testing.assert_close(attention_kl(student + 5, teacher), attention_kl(student, teacher))


def test_the_teachers_heads_in_another_order_are_other_heads():
    """A student that attends as its teacher does, by heads in another order, is silently led away from it."""
    _, teacher = pair(2, 3, 4, 6)
    assert (attention_kl(teacher[:, [1, 2, 0]], teacher) > 1e-2).all()


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(
        attention_kl(student, teacher, temperature=1.0), attention_kl(student, teacher, temperature=8.0)
    )


def test_other_heads_are_refused_with_the_way_out():
    with pytest.raises(ShrinkError, match="equally many heads"):
        attention_kl(torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 4, 4))
