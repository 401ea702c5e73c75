"""The likeliest tokens in a few bytes: what comes back, how far off it is, and what a token takes."""

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from hf_shrink.distillation import token_packing
from hf_shrink.distillation.cache_columns import PartWriter, bytes_a_token, open_parts, pack_as
from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.token_packing import SPAN, TokenPacking, packing_of
from hf_shrink.errors import ShrinkError
from tests.distillation.tasks import TASK_CASES, VOCABULARY

SIZES = [(v, k) for v in (1, 2, 3, 8, 9, 255, 256, 257, 1025) for k in sorted({1, min(v, 5), min(v, 16), v})]


def scores_of(vocabulary, rows=13, scale=3.0):
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0))


def zipf(rows, vocabulary, exponent=2.0):
    """Softmaxes as a language model has them: a few likely tokens, and a long tail in another order each time."""
    generator = torch.Generator().manual_seed(1)
    ranks = torch.stack([torch.randperm(vocabulary, generator=generator) for _ in range(rows)]) + 1.0
    return -exponent * ranks.log() + 0.3 * torch.randn(rows, vocabulary, generator=generator)


def there_and_back(scores, k):
    packing = TokenPacking(k, scores.shape[-1])
    records = packing.pack(scores)
    assert records.dtype == torch.uint8
    assert records.shape == (len(scores), packing.width)
    return packing.unpack(records)


# ------------------------------------------------------------------ there and back
@pytest.mark.parametrize(("vocabulary", "k"), [*SIZES, (152_000, 1), (152_000, 16)])
def test_ids_come_back_and_probabilities_nearly(vocabulary, k):
    scores = scores_of(vocabulary, rows=4 if vocabulary > 2000 else 13)
    log_probs = scores.double().log_softmax(-1)
    top, ids = log_probs.topk(k)
    back = there_and_back(scores, k)
    assert torch.equal(back.ids.long(), ids)
    step = (top[:, 0] - top[:, -1]).clamp(max=SPAN) / 255
    assert ((back.log_probs - top).abs().amax(-1) <= step + 1e-3).all()
    assert (back.log_probs.diff(dim=-1) <= 0).all()  # in the same order
    tail = 1 - top.exp().sum(-1)
    torch.testing.assert_close(back.tail.double().exp(), tail, rtol=4e-3, atol=1e-7)


@pytest.mark.parametrize(("vocabulary", "k"), SIZES)
def test_probabilities_add_up_to_one(vocabulary, k):
    dense = there_and_back(scores_of(vocabulary), k).dense(vocabulary)
    assert dense.shape == (13, vocabulary)
    torch.testing.assert_close(dense.double().exp().sum(-1), torch.ones(13).double(), rtol=0, atol=1e-5)


def test_the_others_share_the_tail():
    scores = torch.log(torch.tensor([[0.1, 0.5, 0.05, 0.3, 0.05]]))
    dense = there_and_back(scores, 2).dense(5).exp()
    torch.testing.assert_close(dense, torch.tensor([[0.2 / 3, 0.5, 0.2 / 3, 0.3, 0.2 / 3]]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("vocabulary", [2, 256, 257, 65_536, 131_073, 152_000])
def test_ids_at_the_edges(vocabulary):
    edges = sorted({0, 1, vocabulary // 2, vocabulary - 2, vocabulary - 1})
    scores = torch.zeros(1, vocabulary)
    scores[0, edges] = 5.0 + torch.arange(len(edges))
    assert there_and_back(scores, len(edges)).ids.tolist() == [edges[::-1]]


def test_one_token_alone_has_the_bytes_it_has_among_others():
    packing = TokenPacking(3, 9)  # 5 bytes before the numbers: they begin at an odd one
    records = packing.pack(scores_of(9)).reshape(13, 1, -1)
    whole = packing.unpack(records)
    for row in (records[:1], records[0], records[0, 0]):
        alone = packing.unpack(row)
        assert torch.equal(alone.ids.reshape(-1), whole.ids[0, 0])
        assert torch.equal(alone.tail.reshape(-1), whole.tail[0])


def test_parts_of_a_batch_are_packed_alike(monkeypatch):
    packing, scores = TokenPacking(4, 50), scores_of(50)
    whole = packing.pack(scores)
    monkeypatch.setattr(token_packing, "CHUNK", 100)
    assert torch.equal(packing.pack(scores), whole)
    assert packing.pack(scores[:0]).shape == (0, packing.width)


# ------------------------------------------------------------------ extremes
@pytest.mark.parametrize("k", [1, 3, 9])
def test_padding_gives_finite_scores(k):
    packing = TokenPacking(k, 9)
    assert packing.unpack(torch.zeros(2, 5, packing.width, dtype=torch.uint8)).dense(9).isfinite().all()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_what_the_teacher_rules_out_stays_finite(k):
    dense = there_and_back(torch.tensor([[-torch.inf, 2.0, -torch.inf, 1.0]]), k).dense(4)
    assert dense.isfinite().all()
    if k > 1:
        expected = torch.tensor([[0.0, 2.0, 0.0, 1.0]]).exp() * torch.tensor([[0, 1, 0, 1]])
        torch.testing.assert_close(dense.exp(), expected / expected.sum(), rtol=SPAN / 255, atol=1e-6)


def test_equal_scores_stay_equal():
    dense = there_and_back(torch.zeros(2, 152_000), 16).dense(152_000)
    torch.testing.assert_close(dense.exp() * 152_000, torch.ones(2, 152_000), rtol=5e-3, atol=0)


def test_one_certain_token():
    scores = torch.zeros(1, 100)
    scores[0, 7] = 200.0
    dense = there_and_back(scores, 4).dense(100)
    assert dense.isfinite().all()
    assert dense[0, 7] == 0
    assert dense[0, :7].exp().sum() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_teachers_are_packed_in_single_precision(dtype):
    scores = scores_of(40).to(dtype)
    assert torch.equal(TokenPacking(5, 40).pack(scores), TokenPacking(5, 40).pack(scores.float()))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ShrinkError, match="`teacher` must give finite scores"):
        TokenPacking(2, 3).pack(torch.tensor([[1.0, torch.nan, 0.0]]))


def test_another_vocabulary_is_refused():
    with pytest.raises(ShrinkError, match="`teacher` must score the 5 tokens .* got 6 scores"):
        TokenPacking(2, 5).pack(torch.ones(1, 6))


# ------------------------------------------------------------------ what it costs and what it is worth
def test_a_token_of_152_000_takes_56_bytes_on_disk(tmp_path):
    (tmp_path / "data").mkdir()
    packing = TokenPacking(16, 152_000)
    column = pack_as(packing.pack, scores_of(152_000, rows=12).reshape(2, 6, -1), None)
    with PartWriter(tmp_path) as writer:
        writer.add(pa.table({"likeliest": column}))
    rows = open_parts(tmp_path)
    stored = rows.data.column("likeliest").combine_chunks()
    assert bytes_a_token(rows) == packing.width == 56 <= 64
    assert stored.flatten().flatten().nbytes == 12 * 56


def test_all_tokens_give_the_divergence_of_the_scores_themselves():
    teacher, student = scores_of(257), torch.randn(13, 257, generator=torch.Generator().manual_seed(2))
    dense = there_and_back(teacher, 257).dense(257)
    step = (teacher.amax(-1) - teacher.amin(-1)) / 255
    for temperature in (1.0, 2.0):
        exact = forward_kl(student, teacher, temperature=temperature)
        found = forward_kl(student, dense, temperature=temperature)
        assert ((found - exact).abs() <= 2 * step * temperature * (1 + exact)).all()
        torch.testing.assert_close(found, exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("k", "least"), [(16, 0.99), (64, 0.999), (2000, 0.9999)])
def test_the_gradient_is_that_of_the_whole_softmax(k, least):
    teacher, states = zipf(64, 2000), torch.randn(64, 32, generator=torch.Generator().manual_seed(3))

    def gradient(theirs):
        head = (0.1 * torch.randn(32, 2000, generator=torch.Generator().manual_seed(4))).requires_grad_()
        forward_kl(states @ head, theirs, temperature=1.0).mean().backward()
        return head.grad.flatten()

    exact, found = gradient(teacher), gradient(there_and_back(teacher, k).dense(2000))
    assert F.cosine_similarity(exact, found, dim=0) >= least
    cut = teacher.masked_fill(teacher < teacher.topk(k).values[:, -1:], -30.0)  # the likeliest alone, without a tail
    if k < 2000:
        assert (gradient(cut) - exact).norm() > 1.5 * (found - exact).norm()


# ------------------------------------------------------------------ refused
@pytest.mark.parametrize("task", [task for task in TASK_CASES if task not in token_packing.VOCABULARY_TASKS])
def test_other_tasks_are_refused(task):
    with pytest.raises(ShrinkError, match=f"`top_k` must be None for {task}, got 4: only scores over a vocabulary"):
        packing_of(4, task, TASK_CASES[task].student().config)


@pytest.mark.parametrize("top_k", [0, -1, VOCABULARY + 1, 2.0, True])
@pytest.mark.parametrize("task", token_packing.VOCABULARY_TASKS)
def test_other_numbers_are_refused(task, top_k):
    with pytest.raises(ShrinkError, match=rf"`top_k` must be a whole number in \[1, {VOCABULARY}\]"):
        packing_of(top_k, task, TASK_CASES[task].student().config)


def test_an_even_tail_is_not_softened():
    TokenPacking(3, 9).check_temperature(1.0)
    TokenPacking(9, 9).check_temperature(2.0)  # there is no tail
    with pytest.raises(ShrinkError, match=r"`temperature` must be 1 .*, got 2.0: softened"):
        TokenPacking(3, 9).check_temperature(2.0)
