"""`explain_export` says beforehand what `save_pruned` writes."""

from dataclasses import replace

import pytest

from hf_shrink.architectures import architecture_of, register_architecture
from hf_shrink.architectures import known as known_architectures
from hf_shrink.evaluation.macs import count_macs
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.free_shapes import cut_freely
from hf_shrink.pruning.layout_costs import explain_export
from hf_shrink.pruning.layouts import save_pruned
from tests.architectures.models import tiny_model
from tests.pruning.silencing import kill_heads, kill_units
from tests.pruning.test_layouts import count, uneven


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "vit", "whisper"])
def test_the_numbers_are_those_of_the_saved_models(family, tmp_path):
    model = uneven(family)
    table = explain_export(model, sequence_length=16)
    native, pad, remote = table.layouts
    assert (native.exact, pad.exact, remote.exact, table.automatic) == (False, True, True, "pad")
    assert (native.parameters, native.size_bytes, native.macs) == (None, None, None)
    assert (table.parameters, table.macs) == (count(model), count_macs(model, sequence_length=16))
    for row, smaller in ((pad, compact(model)), (remote, cut_freely(model))):
        assert row.parameters == count(smaller)
        assert row.macs == count_macs(smaller, sequence_length=16)
        written = save_pruned(model, tmp_path / row.layout, row.layout).size_bytes
        assert abs(row.size_bytes - written) < 0.1 * written  # the header of a tiny model's file is a large part
    assert remote.macs < pad.macs < table.macs
    assert explain_export(cut_freely(model), sequence_length=16).layouts == table.layouts


def test_where_nothing_stays_dead():
    table = explain_export(kill_units(tiny_model("bert"), live=(22, 22, 22, 22)), sequence_length=16)
    native, pad, remote = table.layouts
    assert table.automatic == "native"
    assert native.exact
    assert native.parameters == pad.parameters == remote.parameters < table.parameters
    assert native.note == pad.note == "no dead unit is left."


def test_what_is_printed(capsys):
    heads = kill_heads(tiny_model("bert"), [[0, 1, 2]])
    table = explain_export(heads, sequence_length=16)
    print(table)  # noqa: T201
    text = capsys.readouterr().out
    assert text == table.to_markdown() + "\n"
    assert "| `native` | no | – | – | – | – |" in text
    assert "| `remote` | yes | trust_remote_code=True |" in text
    assert "dead units would stay: 1 of 4 in bert.encoder.layer.0.attention.output.dense" in text
    assert "of the bytes and" in text
    assert "`auto` is `pad`. MACs are those of one row of 16 tokens." in text


def test_a_family_whose_head_counts_are_not_known(monkeypatch):
    monkeypatch.setattr(known_architectures, "_KNOWN", list(known_architectures._KNOWN))
    family = architecture_of(tiny_model("bert"))
    (stack,) = family.stacks
    plain = replace(stack, attention=replace(stack.attention, head_counts=None))
    register_architecture(replace(family, stacks=(plain,)))
    remote = explain_export(kill_heads(tiny_model("bert"), [[0, 1, 2]])).layouts[-1]
    assert not remote.exact
    assert "it is not known where the family keeps its number of heads" in remote.note
