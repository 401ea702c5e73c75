"""The k-th smallest score against torch.kthvalue and torch.sort, over dtypes, shapes, ties and corners of floats."""

import math

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import threshold
from hf_shrink.pruning.threshold import chunks, kth_smallest

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = ["normal", "ties", "bits", "infinite", "subnormal", "zeros", "equal", "masked"]


def draw(kind, size, generator):
    """Float32 scores; `bits` are all floats with the same chance, so that every exponent is there."""
    normal = torch.randn(size, generator=generator)
    some = torch.rand(size, generator=generator) < 0.3
    match kind:
        case "ties":
            return torch.randint(-3, 4, (size,), generator=generator) / 8
        case "bits":
            bits = torch.randint(-(2**31), 2**31, (size,), generator=generator).to(torch.int32)
            return bits.view(torch.float32).nan_to_num(0.5)
        case "infinite":
            return torch.where(some, math.inf * normal.sign(), normal)
        case "masked":
            return torch.where(some, -math.inf, normal.abs())
        case "subnormal":
            bits = torch.randint(300, (size,), generator=generator).to(torch.int32)
            return bits.view(torch.float32) * normal.sign()
        case "zeros":
            return torch.where(some, 0.0, -0.0) + torch.where(some & (normal > 0), normal, 0.0) * 1e-3
        case "equal":
            return torch.full((size,), -1.25)
    return normal


def split(values, generator):
    """The same scores as sets of chance sizes, an empty one among them."""
    cuts = torch.randint(0, len(values) + 1, (3,), generator=generator).sort().values.tolist()
    parts = [values[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    return [(f"set {i}", part) for i, part in enumerate([*parts, values[:0]])]


def check(sets, k):
    """Against a sort of all, in float64, where the values of the three dtypes are themselves."""
    ordered = torch.cat([values.flatten().double() for _, values in sets]).sort().values
    found = kth_smallest(lambda: iter(sets), k)
    assert found.value == ordered[k - 1].item()
    assert found.below == int((ordered < ordered[k - 1]).sum())
    return found


# ------------------------------------------------------------------ against torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_the_one_that_kthvalue_finds(kind, dtype):
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 100, 3001):
        values = draw(kind, size, generator).to(dtype)
        sets = split(values, generator)
        for k in {1, 2, size // 3, size // 2, size - 1, size} & set(range(1, size + 1)):
            assert check(sets, k).value == values.kthvalue(k).values.item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "bits"])
def test_a_million(kind, dtype):
    generator = torch.Generator().manual_seed(1)
    values = draw(kind, 1_000_003, generator).to(dtype)
    sets = split(values, generator)
    for k in (1, 800_000, len(values)):
        assert check(sets, k).value == values.kthvalue(k).values.item()


@pytest.mark.parametrize("seed", range(30))
def test_sets_of_several_dtypes(seed):
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for index in range(6):
        kind = KINDS[int(torch.randint(len(KINDS), (), generator=generator))]
        values = draw(kind, int(torch.randint(1, 400, (), generator=generator)), generator)
        sets.append((str(index), values.to(DTYPES[index % 3])))
    total = sum(len(values) for _, values in sets)
    for k in torch.randint(1, total + 1, (8,), generator=generator).tolist():
        check(sets, k)


def test_every_bfloat16_and_float16_is_told_from_its_neighbours():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        values = every.view(dtype)
        values = values[~values.isnan()]
        for k in range(1, len(values) + 1, 997):
            check([("all", values)], k)


def test_neighbouring_floats_are_told_apart():
    for middle in (1.0, -1.0, 0.0, 1e-38, -3e38, 65536.0):
        bits = torch.tensor(middle).view(torch.int32) + torch.arange(5, dtype=torch.int32)
        for k in range(1, 6):
            check([("a", bits.view(torch.float32))], k)


def test_zeros_of_both_signs_are_one_score():
    found = kth_smallest(lambda: [("a", torch.tensor([0.0, -0.0, 1.0, -1e-45, -0.0]))], 3)
    assert (found.value, math.copysign(1, found.value), found.below) == (0.0, 1.0, 1)


def test_k_lowest_that_are_pruned_already():
    found = kth_smallest(lambda: [("a", torch.tensor([-math.inf, 2.0])), ("b", torch.tensor([-math.inf, 1.0]))], 2)
    assert (found.value, found.below) == (-math.inf, 0)


# ------------------------------------------------------------------ pieces
def views():
    base = torch.arange(24.0).view(4, 6)
    return [
        base,
        base.T,
        base[:, ::2],
        base[1:, 2:5],
        base.view(2, 3, 4).permute(2, 0, 1),
        torch.tensor(3.0),
        torch.tensor([2.0]).expand(7),
        torch.ones(0, 3),
        torch.nn.Parameter(base.clone()),
    ]


@pytest.mark.parametrize("values", views(), ids=lambda values: f"{tuple(values.shape)}")
def test_pieces_are_short_and_keep_the_order(values, monkeypatch):
    monkeypatch.setattr(threshold, "CHUNK", 5)
    pieces = list(chunks(values))
    assert all(piece.dim() == 1 and 0 < len(piece) <= 5 for piece in pieces)
    assert not any(piece.requires_grad for piece in pieces)
    assert torch.equal(torch.cat([*pieces, torch.zeros(0)]), values.detach().flatten())


def test_pieces_of_a_contiguous_set_are_no_copies():
    values = torch.zeros(3, 4)
    assert next(chunks(values)).data_ptr() == values.data_ptr()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_size_of_the_pieces_changes_nothing(chunk, monkeypatch):
    values = torch.randn(20, 10, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(threshold, "CHUNK", chunk)
    for k in (1, 77, 200):
        check([("a", values.T), ("b", values[:3])], k)


def test_scores_are_asked_for_once_a_pass():
    asked = []

    def scores(dtype):
        asked.append(dtype)
        yield "a", torch.arange(4.0).to(dtype)

    for dtype in DTYPES:
        kth_smallest(lambda dtype=dtype: scores(dtype), 2)
    assert asked == [torch.float32] * 2 + [torch.bfloat16] + [torch.float16] * 2


# ------------------------------------------------------------------ refusals
@pytest.mark.parametrize("k", [0, -1, 5, math.nan])
def test_k_must_be_there(k):
    with pytest.raises(ShrinkError, match=r"`k` must be in \[1, 4\]"):
        kth_smallest(lambda: [("a", torch.zeros(4))], k)


def test_no_scores_at_all():
    with pytest.raises(ShrinkError, match="`k` must be in"):
        kth_smallest(lambda: [], 1)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFC00000 - 2**32, 0xFF800001 - 2**32], ids=hex)
def test_nan_is_refused_by_name(bits):
    values = torch.zeros(1000, dtype=torch.int32)
    values[777] = bits
    with pytest.raises(ShrinkError, match="`scores` must not hold NaN.*'encoder'"):
        kth_smallest(lambda: [("fine", torch.ones(2)), ("encoder", values.view(torch.float32))], 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_nan_is_refused_in_half_precision(dtype):
    with pytest.raises(ShrinkError, match="NaN for 'a'"):
        kth_smallest(lambda: [("a", torch.tensor([1.0, math.nan, -math.inf], dtype=dtype))], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool], ids=str)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ShrinkError, match=r"`scores` must be float32, bfloat16 or float16.*\.float\(\)"):
        kth_smallest(lambda: [("a", torch.ones(3).to(dtype))], 1)
