"""Neurons and heads of all families: a masked unit is a removed unit, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_shrink.architectures import known
from hf_shrink.architectures.known import architecture_of
from hf_shrink.errors import ShrinkError
from tests.architectures.models import FAMILIES, HEADS, answer, tiny_config, tiny_model
from tests.pruning.structures.ablation import ablated, ends, width
from tests.pruning.structures.laying import apply, fingerprint, kept_all, lay, magnitudes, masks_without

BOTH = ("neurons", "heads")
T5 = ("t5", "gated-t5")
WITH_GATE = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gated-t5"}
WITH_HEADS = [family for family in FAMILIES if "heads" in architecture_of(tiny_config(family)).cuts]


@pytest.fixture
def every_cut(monkeypatch):
    """Every family may lose heads, so that those whose config cannot say so yet are held to the same."""
    every = [replace(each, cuts=each.cuts | {"ffn", "heads"}) for each in known._KNOWN]
    monkeypatch.setattr(known, "_KNOWN", every)


def set_names(structure):
    return [name for name, _ in structure.unit_scores(magnitudes(structure))]


@pytest.mark.usefixtures("every_cut")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BOTH)
def test_there_is_a_set_for_every_block(family, name):
    model = tiny_model(family)
    structure = lay(model, name)
    expected = ["num_heads"] if name == "heads" and family in T5 else ends(model, family, name)
    assert sorted(set_names(structure)) == sorted(expected)
    axis = 0 if family == "gpt2" else 1
    inputs = {model.get_submodule(end).weight.shape[axis] for end in ends(model, family, name)}
    assert {len(kept) * width(model, name) for kept in kept_all(structure).values()} == inputs


@pytest.mark.usefixtures("every_cut")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BOTH)
def test_a_masked_unit_is_a_removed_one(family, name):
    model = tiny_model(family)
    dense = answer(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    structure = lay(model, name)
    sets, size = kept_all(structure), width(model, name)
    for set_name in dict.fromkeys((list(sets)[0], list(sets)[-2 if len(sets) > 1 else -1], list(sets)[-1])):
        effects = []
        for unit in (0, 1, len(sets[set_name]) - 1):
            model.load_state_dict(state)
            blocks = ends(model, family, name) if set_name == "num_heads" else [set_name]
            with ablated(model, blocks, unit * size, size):
                expected = answer(model)
            apply(structure, masks_without(structure, set_name, unit))
            torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)
            effects.append((expected - dense).abs().max().item())
        assert max(effects) > 1e-3, "the units do nothing, which proves nothing"  # a single neuron may be dead


@pytest.mark.usefixtures("every_cut")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BOTH)
def test_a_unit_is_its_rows_with_biases_and_its_columns(family, name):
    """Of every parameter as much as is its due: with the test above, no other place is left for it."""
    model = tiny_model(family)
    structure = lay(model, name)
    sets = kept_all(structure)
    set_name = list(sets)[-1]
    units = len(sets[set_name])
    masks = masks_without(structure, set_name, 1)
    touched = {key: mask for key, mask in masks.items() if not mask.all()}
    blocks = ends(model, family, name) if set_name == "num_heads" else [set_name]
    for key, mask in touched.items():
        assert (~mask).sum().item() * units == mask.numel(), key
    outputs = [key for key in touched if key.rpartition(".")[0] in blocks]
    assert outputs == [f"{block}.weight" for block in blocks]  # and not its bias
    owners = {key.rpartition(".")[0] for key in touched}
    for owner in owners - set(blocks):
        assert {f"{owner}.{key}" for key, _ in model.get_submodule(owner).named_parameters()} <= touched.keys()
    per_block = {"neurons": 3 if family in WITH_GATE else 2, "heads": 2 if family == "gpt2" else 4}[name]
    assert len(owners) == per_block * len(blocks)


@pytest.mark.parametrize(("family", "head"), [(family, head) for family in FAMILIES for head in ("", *HEADS[family])])
def test_any_head_may_be_on_top(family, head):
    model = tiny_model(family, head)
    for name in BOTH if family in WITH_HEADS else BOTH[:1]:
        structure = lay(model, name)
        expected = ["num_heads"] if name == "heads" and family in T5 else ends(model, family, name)
        assert sorted(set_names(structure)) == sorted(expected)


def test_a_head_of_grouped_queries_goes_with_all_of_them():
    structure = lay(tiny_model("llama"), "heads")  # 4 query heads and 2 of keys and values, of size 10
    block = "model.layers.2.self_attn"
    masks = masks_without(structure, f"{block}.o_proj", 1)
    gone = {key: (~mask).nonzero().T for key, mask in masks.items() if not mask.all()}
    rows = {key: sorted(set(places[0].tolist())) for key, places in gone.items()}
    columns = sorted(set(gone[f"{block}.o_proj.weight"][1].tolist()))
    assert gone.keys() == {f"{block}.{part}_proj.weight" for part in "qkvo"}
    assert rows[f"{block}.q_proj.weight"] == columns == list(range(20, 40))
    assert rows[f"{block}.k_proj.weight"] == rows[f"{block}.v_proj.weight"] == list(range(10, 20))
    assert rows[f"{block}.o_proj.weight"] == list(range(32))


@pytest.mark.usefixtures("every_cut")
def test_fused_projections_lose_queries_keys_and_values():
    structure = lay(tiny_model("gpt2"), "heads")  # 4 heads of size 8, stored as (inputs, outputs)
    block = "transformer.h.0.attn"
    masks = masks_without(structure, f"{block}.c_proj", 2)
    gone = [*range(16, 24), *range(32 + 16, 32 + 24), *range(64 + 16, 64 + 24)]
    expected = torch.ones(96, dtype=torch.bool)
    expected[gone] = False
    assert torch.equal(masks[f"{block}.c_attn.bias"], expected)
    assert torch.equal(masks[f"{block}.c_attn.weight"], expected.expand(32, 96))
    assert torch.equal(masks[f"{block}.c_proj.weight"], expected[:32, None].expand(32, 32))


@pytest.mark.usefixtures("every_cut")
@pytest.mark.parametrize(("family", "name"), [("bert", "neurons"), ("gpt2", "heads"), ("gated-t5", "heads")])
def test_a_unit_is_worth_the_sum_of_the_weights_that_would_go(family, name):
    structure = lay(tiny_model(family), name)
    score = magnitudes(structure)
    for set_name, scores in structure.unit_scores(score):
        for unit in (0, len(scores) - 1):
            masks = masks_without(structure, set_name, unit)
            lost = sum(score(key).double()[~masks[key]].sum() for key in structure.scored)
            assert scores[unit].item() == pytest.approx(lost.item(), rel=1e-5)


def test_biases_are_masked_and_not_scored():
    structure = lay(tiny_model("bert"), "neurons")
    up = "bert.encoder.layer.0.intermediate.dense"
    assert f"{up}.bias" in structure.parameters
    assert f"{up}.bias" not in structure.scored
    assert "bert.encoder.layer.0.output.dense.bias" not in structure.parameters


def test_a_set_that_is_no_target_as_a_whole_is_left_out():
    model = tiny_model("llama")
    ignored = ("model.layers.0.mlp.gate_proj", "model.layers.3.self_attn.v_proj")
    assert set_names(lay(model, "neurons", ignored)) == [f"model.layers.{i}.mlp.down_proj" for i in (1, 2, 3)]
    assert set_names(lay(model, "heads", ignored)) == [f"model.layers.{i}.self_attn.o_proj" for i in (0, 1, 2)]
    only = ("re:.*layers.2",)
    assert set_names(lay(model, "neurons", targets=only)) == ["model.layers.2.mlp.down_proj"]


@pytest.mark.parametrize(
    ("family", "name", "ignored"),
    [
        ("llama", "neurons", "re:.*up_proj"),
        ("llama", "heads", "re:.*k_proj"),
        ("t5", "heads", "decoder.block.1.layer.1.EncDecAttention.q"),  # the one set that covers the whole model
    ],
)
def test_no_whole_set_is_refused(family, name, ignored):
    model = tiny_model(family)
    before = fingerprint(model)
    with pytest.raises(ShrinkError) as error:
        lay(model, name, (ignored,))
    text = str(error.value)
    assert text.startswith(f"`targets` must match all linear maps that a set of {name} is made of")
    assert ignored.rpartition("*")[2] in text
    assert fingerprint(model) == before


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in WITH_HEADS])
def test_heads_are_refused_where_no_config_can_say_so(family):
    model = tiny_model(family)
    before = fingerprint(model)
    with pytest.raises(ShrinkError) as error:
        lay(model, "heads")
    text = str(error.value)
    assert text.startswith('`structure` must leave a model that stock transformers loads smaller, got "heads" for ')
    assert type(model).__name__ in text
    assert 'Take "neurons", "unstructured", "2:4", or "block:32x32" instead.' in text
    assert fingerprint(model) == before


def test_unknown_models_are_refused():
    with pytest.raises(ShrinkError, match="`model` must be a transformers model"):
        lay(nn.Sequential(nn.Linear(4, 4)), "neurons")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("layers", [["q_proj", "down_proj"], ["k_proj", "gate_proj", "o_proj"]])
def test_an_adapter_around_changes_names_alone(name, layers):
    plain = lay(tiny_model("llama"), name)
    wrapped = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=layers))
    structure = lay(wrapped, name)
    assert structure.parameters.keys() <= dict(wrapped.named_parameters()).keys()
    stock = {key: key.removeprefix("base_model.model.").replace(".base_layer", "") for key in structure.parameters}
    assert list(stock.values()) == list(plain.parameters)
    index = 2
    masks = masks_without(structure, set_names(structure)[index], 1)
    expected = masks_without(plain, set_names(plain)[index], 1)
    assert all(torch.equal(mask, expected[stock[key]]) for key, mask in masks.items())
    apply(structure, masks)
    apply(plain, expected)
    plain_model = tiny_model("llama")
    plain_model.load_state_dict({**plain_model.state_dict(), **{k: v.detach() for k, v in plain.parameters.items()}})
    torch.testing.assert_close(answer(wrapped.get_base_model().eval()), answer(plain_model), atol=1e-6, rtol=0)


def test_an_adapter_over_fused_transposed_weights():
    wrapped = get_peft_model(
        tiny_model("gpt2"), LoraConfig(r=2, target_modules=["c_fc", "c_proj"], fan_in_fan_out=True)
    )
    structure = lay(wrapped, "neurons")
    assert len(set_names(structure)) == 4
    assert all(".base_layer" in key for key in structure.parameters)
