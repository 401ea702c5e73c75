"""Heads where a fused projection has fewer keys and values than queries, which no family at hand has."""

from torch import nn

from hf_shrink.architectures import Attention
from hf_shrink.pruning.structures._groups import Place
from hf_shrink.pruning.structures.heads import _Block, _pieces


def test_fused_projections_with_grouped_queries():
    attention = Attention(query="qkv", key="qkv", value="qkv", output="o", fused=True)
    places = [Place("qkv", nn.Linear(5, (4 + 2 + 2) * 3, bias=False)), Place("o", nn.Linear(4 * 3, 5))]
    pieces = _pieces(_Block(attention, places, units=2, queries=4))
    assert [(piece.name, piece.axis, piece.start, piece.width) for piece in pieces] == [
        ("qkv.weight", 0, 0, 6),  # two queries of size 3 a unit
        ("qkv.weight", 0, 12, 3),
        ("qkv.weight", 0, 18, 3),
        ("o.weight", 1, 0, 6),
    ]
