import math

import pytest
import torch

from hf_shrink.distillation.losses.similarity_preserving import similarity_preserving
from hf_shrink.errors import ShrinkError
from tests.distillation.losses.double_precision import assert_reference, pair


def wide_pair(rows, student_width, teacher_width):
    return pair(rows, student_width)[0], pair(rows, teacher_width, seed=1)[1]


def test_value_by_hand():
    """Two rows, alike in the student and at a right angle in the teacher.

    Each row of the student's similarities is (1/√2, 1/√2), of the teacher's (1, 0) and (0, 1), whatever the lengths:
    the squared differences add up to 2 - √2, and their mean over the row's 2 pairs is half of that.
    """
    value = similarity_preserving(torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    torch.testing.assert_close(value, torch.full((2,), 1 - 1 / math.sqrt(2)))


@pytest.mark.parametrize(("rows", "widths"), [(2, (9, 9)), (6, (4, 16))])
def test_reference_in_double_precision(rows, widths):
    student, teacher = wide_pair(rows, *widths)
    similarities = []
    for vectors in (student, teacher):
        products = [torch.stack([(a * b).sum() for b in vectors]) for a in vectors]
        similarities.append([row / row.square().sum().sqrt() for row in products])
    expected = torch.stack([(s - t).square().sum() / rows for s, t in zip(*similarities, strict=True)])
    assert_reference(similarity_preserving, student, teacher, expected)


def test_its_mean_is_the_loss_of_the_paper():
    student, teacher = wide_pair(6, 4, 16)
    own, theirs = (torch.nn.functional.normalize(v @ v.T, dim=1) for v in (student, teacher))
    paper = torch.linalg.matrix_norm(theirs - own, "fro") ** 2 / 6**2
    torch.testing.assert_close(similarity_preserving(student, teacher).mean(), paper, atol=1e-12, rtol=0)


def test_turned_and_stretched_vectors_of_another_width_are_as_alike():
    """The student need not take over the teacher's axes, only which rows are near each other."""
    _, teacher = pair(6, 4)
    turn = torch.linalg.qr(pair(9, 9)[0]).Q[:4]  # (4, 9), orthonormal
    value = similarity_preserving(0.1 * teacher @ turn, teacher)
    torch.testing.assert_close(value, torch.zeros(6, dtype=torch.float64), atol=1e-20, rtol=0)


def test_each_rows_length_counts_towards_the_others():
    """Directions alone are not compared: a longer row draws the similarities of all rows to itself."""
    _, teacher = pair(6, 4)
    student = teacher.clone()
    student[0] *= 10
    assert (similarity_preserving(student, teacher) > 1e-3).all()


def test_training_on_it_brings_the_teachers_groups_out():
    """Rows of a kind end more alike than rows of different kinds, from a start without any order."""
    kinds = torch.tensor([0, 1, 0, 1, 0, 1])
    teacher = torch.eye(2)[kinds] + 0.1
    student = pair(6, 3)[0].float().requires_grad_()
    start = similarity_preserving(student, teacher).mean().item()
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = similarity_preserving(student, teacher).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02 * start
    unit = torch.nn.functional.normalize(student.detach(), dim=1)
    cosines, same = unit @ unit.T, kinds[:, None] == kinds
    assert cosines[same].min() > cosines[~same].max() + 0.5


def test_two_batches_have_fewer_pairs_than_their_union():
    """What gradient accumulation silently does: the pairs across batches are never seen."""
    _, teacher = pair(4, 3)
    student = teacher.clone()
    student[2:] = -student[2:]  # each half keeps its similarities, those across are turned round
    parts = torch.cat([similarity_preserving(student[rows], teacher[rows]) for rows in (slice(2), slice(2, 4))])
    assert parts.abs().max() < 1e-12
    assert (similarity_preserving(student, teacher) > 1e-3).all()


def test_temperature_has_no_effect():
    student, teacher = pair(6, 9)
    assert torch.equal(
        similarity_preserving(student, teacher, temperature=1.0),
        similarity_preserving(student, teacher, temperature=8.0),
    )


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_size_of_the_vectors_neither_overflows_nor_vanishes(scale):
    """Squares of products of such vectors are beyond fp32."""
    student, teacher = (vectors.float() for vectors in pair(6, 9))
    torch.testing.assert_close(
        similarity_preserving(scale * student, teacher), similarity_preserving(student, teacher)
    )


def test_a_row_alone_is_refused():
    """Its similarity to itself is 1 in both: a loss of 0 that teaches nothing."""
    with pytest.raises(ShrinkError, match="at least 2 rows, got 1: .*dataloader_drop_last"):
        similarity_preserving(*pair(1, 9))


@pytest.mark.parametrize(
    ("student", "teacher", "match"),
    [
        ((2, 3, 9), (2, 3, 9), "`student_vectors` must have shape .*Pool"),
        ((4, 9), (4, 3, 9), "`teacher_vectors` must have shape .*Pool"),
        ((4,), (4,), "`student_vectors` must have shape"),
        ((4, 9), (3, 9), "`teacher_vectors` must have the 4 rows of `student_vectors`, got 3"),
    ],
)
def test_anything_but_one_vector_a_row_is_refused(student, teacher, match):
    with pytest.raises(ShrinkError, match=match):
        similarity_preserving(torch.ones(student), torch.ones(teacher))
