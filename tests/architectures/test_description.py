"""Every fact of every description, held against tiny models of the installed transformers."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_shrink.architectures import architecture_of, find_layers
from hf_shrink.versions import base_model
from tests.architectures.models import FAMILIES, HEADS, VOCABULARY, answer, tiny_inputs, tiny_model

ALL_HEADS = [(family, head) for family in FAMILIES for head in HEADS[family]]
DECODING_BERTS = ("bert", "roberta", "xlm-roberta", "camembert")


def stacks_of(model):
    layers = find_layers(model)
    return [(stack, layers[stack.name]) for stack in architecture_of(model).stacks if stack.name in layers]


def attentions(stack):
    return [stack.attention] + ([stack.cross_attention] if stack.cross_attention else [])


def width(module):
    """Input and output width of a projection."""
    return tuple(module.weight.shape) if isinstance(module, Conv1D) else tuple(module.weight.shape[::-1])


@pytest.mark.parametrize(("family", "head"), [*ALL_HEADS, *[(family, "") for family in FAMILIES]])
def test_layers_are_where_they_are_said_to_be_under_every_head(family, head):
    model = tiny_model(family, head)
    layers = find_layers(model)
    depths = {"encoder": 4, "decoder": 4 if len(architecture_of(model).stacks) == 1 else 3}
    assert layers
    for name, stack in layers.items():
        assert len(stack) == depths[name]
    listed = {id(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) >= 3 and head}
    inner = {id(m) for stack in layers.values() for layer in stack for m in layer.modules()}  # T5's blocks hold lists
    assert not head or listed - inner == {id(stack) for stack in layers.values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_fields_hold_the_depth(family):
    model = tiny_model(family)
    for stack, layers in stacks_of(model):
        for name in stack.depth_fields:
            assert getattr(model.config, name) == len(layers)
        changed = tiny_model(family, **{stack.depth_fields[0]: 2, **{name: None for name in stack.layer_lists}})
        assert len(find_layers(changed)[stack.name]) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_have_the_widths_of_their_fields(family):
    model = tiny_model(family)
    config, architecture = model.config, architecture_of(model)
    hidden = getattr(config, architecture.hidden_field)
    for stack, layers in stacks_of(model):
        heads, inner = getattr(config, stack.heads_field), getattr(config, stack.ffn_field)
        size = hidden // heads
        if stack.head_dim_field:
            size = getattr(config, stack.head_dim_field, None) or size
        shared = getattr(config, stack.key_value_heads_field) if stack.key_value_heads_field else heads
        assert (hidden, heads, inner) == (32, 4, 40)
        for layer in layers:
            block = stack.feed_forward
            for path in [block.up, *([block.gate] if block.gate else [])]:
                assert width(layer.get_submodule(path)) == (hidden, inner)
            assert width(layer.get_submodule(block.down)) == (inner, hidden)
            for attention in attentions(stack):
                assert width(layer.get_submodule(attention.output)) == (heads * size, hidden)
                if attention.fused:
                    assert attention.query == attention.key == attention.value
                    assert width(layer.get_submodule(attention.query)) == (hidden, 3 * heads * size)
                    continue
                assert width(layer.get_submodule(attention.query)) == (hidden, heads * size)
                assert width(layer.get_submodule(attention.key)) == (hidden, shared * size)
                assert width(layer.get_submodule(attention.value)) == (hidden, shared * size)
                assert len({attention.query, attention.key, attention.value, attention.output}) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_no_projection_of_a_layer_is_left_out(family):
    model = tiny_model(family)
    kind = Conv1D if architecture_of(model).transposed_weights else nn.Linear
    for stack, layers in stacks_of(model):
        block = stack.feed_forward
        named = {path for path in (block.up, block.gate, block.down) if path}
        for attention in attentions(stack):
            named |= {attention.query, attention.key, attention.value, attention.output}
        for layer in layers:
            assert {name for name, m in layer.named_modules() if isinstance(m, (nn.Linear, Conv1D))} == named
            assert all(isinstance(layer.get_submodule(path), kind) for path in named)


@contextmanager
def changed(module, change):
    hook = module.register_forward_hook(lambda module, args, output: change(output))
    yield
    hook.remove()


def shift(module, part, parts):
    """Add one constant vector to a projection at every position; of a fused one to its part alone."""

    def add(output):
        vector = torch.zeros_like(output)
        torch.chunk(vector, parts, dim=-1)[part].add_(torch.linspace(-2, 2, output.shape[-1] // parts))
        return output + vector

    return changed(module, add)


@pytest.mark.parametrize("family", FAMILIES)
def test_query_key_and_value_are_not_confused(family):
    """A vector added to all keys moves all of a query's scores alike: softmax does not see it. Not so the others."""
    model = tiny_model(family)
    usual = answer(model)
    for stack, layers in stacks_of(model):
        for attention in attentions(stack):
            moved = {}
            for i, name in enumerate(("query", "key", "value")):
                module = layers[0].get_submodule(getattr(attention, name))
                with shift(module, i if attention.fused else 0, 3 if attention.fused else 1):
                    moved[name] = (answer(model) - usual).abs().max()
            assert moved["query"] > 1e-3
            assert moved["value"] > 1e-3
            if stack.key_value_heads_field is None:
                assert moved["key"] < 1e-4
                continue
            # Rotary positions break the rule; but here the widths tell queries, and silence tells values.
            inputs = {}
            hook = (
                layers[0]
                .get_submodule(attention.output)
                .register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.update(heads=args[0]))
            )
            with changed(layers[0].get_submodule(attention.value), torch.zeros_like):
                answer(model)
            hook.remove()
            assert not inputs["heads"].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_gates_go_through_the_activation(family):
    """A gate far below zero shuts the block; a second projection far below zero does not."""
    model = tiny_model(family)
    for stack, layers in stacks_of(model):
        block, inputs = stack.feed_forward, {}
        layers[0].get_submodule(block.down).register_forward_pre_hook(
            lambda module, args, inputs=inputs: inputs.update(inner=args[0])
        )
        with changed(layers[0].get_submodule(block.up), lambda output: torch.full_like(output, -100.0)):
            answer(model)
        assert (inputs["inner"].abs().max() > 1) == (block.gate is not None)
        if block.gate is not None:
            with changed(layers[0].get_submodule(block.gate), lambda output: torch.full_like(output, -100.0)):
                answer(model)
            assert inputs["inner"].abs().max() < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_index_is_stored_where_it_is_said_to_be(family):
    models = [tiny_model(family)]
    if family in DECODING_BERTS:
        models.append(tiny_model(family, "CausalLM", is_decoder=True, add_cross_attention=True))
    if family == "gpt2":
        models.append(tiny_model(family, add_cross_attention=True))
    named = set()
    for model in models:
        for stack, layers in stacks_of(model):
            for index, layer in enumerate(layers):
                found = {name: vars(m)["layer_idx"] for name, m in layer.named_modules() if "layer_idx" in vars(m)}
                found = {name: value for name, value in found.items() if value is not None}
                assert found == {name: index for name in found}
                assert set(found) <= set(stack.layer_index)
                named |= {(stack.name, name) for name in found}
    assert named == {(stack.name, name) for stack in architecture_of(models[0]).stacks for name in stack.layer_index}


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_with_one_entry_a_layer_are_known(family):
    config = tiny_model(family, "").config
    lists = {name for name, value in config.to_dict().items() if isinstance(value, list) and len(value) in (3, 4)}
    lists.discard("architectures")
    assert lists == {name for stack in architecture_of(config).stacks for name in stack.layer_lists}
    for stack in architecture_of(config).stacks:
        for name in stack.layer_counts:
            count = getattr(config, name)
            assert config.layer_types == ["full_attention"] * count + ["sliding_attention"] * (4 - count)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_layers_hold_what_others_lack(family):
    model = tiny_model(family)
    for stack, layers in stacks_of(model):
        shapes = [{name: p.shape for name, p in layer.named_parameters()} for layer in layers]
        special = {f"{module.path}.weight" for module in stack.first_layer_modules}
        assert set(shapes[0]) - set(shapes[1]) == special
        assert all(other == shapes[1] for other in shapes[1:])
        for module in stack.first_layer_modules:
            around = module.path.rpartition(".")[0]
            assert layers[0].get_submodule(module.path).weight.shape[-1] == getattr(model.config, stack.heads_field)
            assert getattr(layers[0].get_submodule(around), module.flag) is True
            assert getattr(layers[1].get_submodule(around), module.flag) is False


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_of_the_config_are_known(family):
    model = tiny_model(family)
    base = base_model(model)
    models = {name: m for name, m in base.named_modules() if isinstance(m, PreTrainedModel)}
    copies = {name for name, m in models.items() if m.config is not model.config}
    assert copies == {stack.copied_config[0] for stack in architecture_of(model).stacks if stack.copied_config}
    for stack, layers in stacks_of(model):
        if stack.copied_config:
            path, name = stack.copied_config
            assert getattr(base.get_submodule(path).config, name) == len(layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings(family):
    model = tiny_model(family)
    architecture, base, config = architecture_of(model), base_model(model), model.config
    if architecture.token_embeddings is None:
        assert architecture.vocabulary_field is None
        assert "vocab_size" not in config.to_dict()
        return
    tokens = base.get_submodule(architecture.token_embeddings)
    assert tokens is model.get_input_embeddings()
    assert tuple(tokens.weight.shape) == (getattr(config, architecture.vocabulary_field), 32)
    for path in architecture.embedding_aliases:
        assert base.get_submodule(path).weight is tokens.weight
    if architecture.position_embeddings:
        positions = base.get_submodule(architecture.position_embeddings).weight
        assert tuple(positions.shape) == (getattr(config, architecture.positions_field), 32)
    tables = {id(p) for name, p in base.named_parameters() if p.shape[0] in (48, VOCABULARY) and p.ndim == 2}
    named = [architecture.token_embeddings, architecture.position_embeddings]
    assert tables == {id(base.get_submodule(path).weight) for path in named if path}


@pytest.mark.parametrize(("family", "head"), ALL_HEADS)
def test_ties_and_vocabulary_biases(family, head):
    model = tiny_model(family, head)
    architecture = architecture_of(model)
    modules = dict(model.named_modules())
    outputs = [modules[path] for path in architecture.output_embeddings if path in modules]
    own = model.get_output_embeddings()
    assert outputs == ([] if own is None else [own])
    if outputs:
        tied = outputs[0].weight is model.get_input_embeddings().weight
        assert tied == model.config.tie_word_embeddings
        base = {id(p) for p in base_model(model).parameters()} if base_model(model) is not model else set()
        biases = {id(p) for p in model.parameters() if tuple(p.shape) == (VOCABULARY,) and id(p) not in base}
        assert biases == {id(model.get_parameter(path)) for path in architecture.vocabulary_biases}
        twin = tiny_model(family, head, tie_word_embeddings=True)
        assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight


@pytest.mark.parametrize(("family", "head"), ALL_HEADS)
def test_output_layers_make_the_logits(family, head):
    model = tiny_model(family, head)
    modules = dict(model.named_modules())
    found = [path for path in architecture_of(model).output_layers if isinstance(modules.get(path), nn.Linear)]
    assert len(found) == 1
    assert answer(model).abs().max() > 0.01
    modules[found[0]].register_forward_hook(lambda module, args, output: torch.full_like(output, 7.0))
    assert (answer(model) == answer(model).flatten()[0]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_modules_are_those_that_transformers_freezes(family):
    model = tiny_model(family)
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    base = base_model(model)
    named = {id(p) for path in architecture_of(model).frozen for p in base.get_submodule(path).parameters()}
    assert frozen == named


def test_vectors_with_one_entry_a_layer():
    model = tiny_model("whisper", "AudioClassification", use_weighted_layer_sum=True)
    (encoder,) = [stack for stack in architecture_of(model).stacks if stack.layer_vectors]
    assert encoder.name == "encoder"
    for path in encoder.layer_vectors:
        assert tuple(model.get_parameter(path).shape) == (5,)
    answer(model, **tiny_inputs(model))
