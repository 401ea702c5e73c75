import math

import pytest
import torch

from hf_shrink.distillation.attention_capture import Projected
from hf_shrink.distillation.attention_match import relation_scores
from hf_shrink.distillation.losses.minilm_relation import minilm_relation
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def vectors(width, seed):
    """Queries, keys and values of two rows of five tokens."""
    return Projected(*pair(2, 5, width, seed=seed), pair(2, 5, width, seed=seed + 10)[0])


def test_value_by_hand():
    """A token as near to the other as to itself in the student, and three times as near to itself in the teacher."""
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1.0, 1.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(minilm_relation(student, teacher), torch.tensor([expected]))


def test_reference_in_double_precision():
    student, teacher = pair(2, 3, 4, 5, 5)
    own, theirs = (s.exp() / s.exp().sum(-1, keepdim=True) for s in (student, teacher))
    assert_reference(minilm_relation, student, teacher, torch.einsum("...k,...k->...", theirs, (theirs / own).log()))


@pytest.mark.parametrize(("heads", "widths"), [(2, (8, 12)), (1, (4, 4)), (4, (4, 8))])
def test_the_paper_in_double_precision(heads, widths):
    """Token by token and head by head, with the last token of the second row masked; a mean is a third of the sum."""
    models, mask = [vectors(width, seed) for seed, width in enumerate(widths)], torch.ones(2, 5)
    mask[1, 4] = 0
    total = torch.zeros((), dtype=torch.float64)
    for row, tokens in enumerate((5, 4)):
        for part in range(3):
            for head in range(heads):
                relations = []
                for model, width in zip(models, widths, strict=True):
                    size = width // heads
                    own = model[part][row, :tokens, head * size : (head + 1) * size]
                    products = torch.stack([torch.stack([(a * b).sum() for b in own]) for a in own]) / size**0.5
                    relations.append(torch.softmax(products, dim=-1))
                student, teacher = relations
                total = total + (teacher * (teacher / student).log()).sum() / (tokens * heads * 2)
    values = minilm_relation(*(relation_scores(model, mask, heads) for model in models))  # (2, 3, heads, 5)
    assert values.shape == (2, 3, heads, 5)
    means = [values[0].mean(), values[1, ..., :4].mean()]
    torch.testing.assert_close(torch.stack(means).mean(), total / 3, atol=1e-6, rtol=0)


def test_turned_vectors_have_the_same_relations():
    teacher = vectors(8, 0)
    turn = torch.linalg.qr(pair(4, 4)[0]).Q
    turned = Projected(*(part.unflatten(-1, (2, 4)).matmul(turn).flatten(-2) for part in teacher))
    values = minilm_relation(relation_scores(turned, None, 2), relation_scores(teacher, None, 2))
    torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0)


@pytest.mark.parametrize("part", range(3))
def test_queries_keys_and_values_all_count(part):
    teacher = vectors(8, 0)
    student = Projected(*(2 * vector if i == part else vector for i, vector in enumerate(teacher)))
    values = minilm_relation(relation_scores(student, None, 2), relation_scores(teacher, None, 2))
    assert (values[:, part] > 1e-4).all()
    assert values.sum() == pytest.approx(values[:, part].sum().item())


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(
        minilm_relation(student, teacher, temperature=1.0), minilm_relation(student, teacher, temperature=8.0)
    )


def test_other_numbers_of_relation_heads_are_refused_with_the_way_out():
    with pytest.raises(ShrinkError, match="equally many relation heads"):
        minilm_relation(torch.zeros(2, 3, 2, 4, 4), torch.zeros(2, 3, 4, 4, 4))
