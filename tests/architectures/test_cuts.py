"""What a description says can be cut is cut here by the description alone, and loaded by stock transformers."""

import pytest
import torch
import transformers
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from hf_shrink.architectures import architecture_of, find_layers
from hf_shrink.versions import base_model
from tests.architectures.models import FAMILIES, HEADS, VOCABULARY, answer, auto_class, tiny_inputs, tiny_model

KEPT_UNITS = list(range(0, 40, 2)) + [1, 3]  # 22 of 40, so that no other width can be taken for it
KEPT_TOKENS = 50


def can(family, cut):
    return cut in architecture_of(tiny_model(family, "")).cuts


def stacks_of(model):
    layers = find_layers(model)
    return [(stack, layers[stack.name]) for stack in architecture_of(model).stacks]


def attentions(stack):
    return [stack.attention] + ([stack.cross_attention] if stack.cross_attention else [])


def names_of(model):
    """Name of each parameter, by its identity."""
    return {id(p): name for name, p in model.named_parameters()}


def load_cut(family, model, weights, folder, **changes):
    """Build the smaller model from the config, fill it, and take it once through the disk."""
    smaller = auto_class(HEADS[family][0]).from_config(AutoConfig.for_model(**{**model.config.to_dict(), **changes}))
    own = dict(smaller.named_parameters())
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            assert parameter.shape == weights[name].shape, name
            parameter.copy_(weights[name])
    smaller.eval().save_pretrained(folder)
    loaded, report = auto_class(HEADS[family][0]).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return loaded


def keep(weights, names, module, *, inputs=None, outputs=None):
    """Keep rows (outputs) or columns (inputs) of a projection."""
    transposed = isinstance(module, Conv1D)
    for parameter in module.parameters():
        name = names[id(parameter)]
        if outputs is not None:
            axis = -1 if transposed else 0
            weights[name] = weights[name].index_select(axis, torch.tensor(outputs))
        if inputs is not None and parameter.ndim == 2:
            weights[name] = weights[name].index_select(0 if transposed else 1, torch.tensor(inputs))


def silence(module, kept):
    """Zero what a projection reads from all but the kept inputs."""
    with torch.no_grad():
        weight = module.weight if isinstance(module, Conv1D) else module.weight.T
        others = [i for i in range(weight.shape[0]) if i not in kept]
        weight[others] = 0


def own_weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_feed_forward_width(family, tmp_path):
    assert can(family, "ffn")
    model = tiny_model(family)
    weights, names, changes = own_weights(model), names_of(model), {}
    for stack, layers in stacks_of(model):
        changes[stack.ffn_field] = len(KEPT_UNITS)
        for layer in layers:
            block = stack.feed_forward
            for path in (block.up, block.gate):
                if path:
                    keep(weights, names, layer.get_submodule(path), outputs=KEPT_UNITS)
            keep(weights, names, layer.get_submodule(block.down), inputs=KEPT_UNITS)
            silence(layer.get_submodule(block.down), KEPT_UNITS)
    smaller = load_cut(family, model, weights, tmp_path, **changes)
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if can(family, "vocabulary")])
def test_vocabulary(family, tmp_path):
    model = tiny_model(family)
    architecture = architecture_of(model)
    weights, modules = own_weights(model), dict(model.named_modules())
    base = base_model(model)
    tables = [base.get_submodule(architecture.token_embeddings).weight]
    tables += [modules[path].weight for path in architecture.output_embeddings]
    tables += [model.get_parameter(path) for path in architecture.vocabulary_biases]
    for name in {names_of(model)[id(table)] for table in tables}:
        assert len(weights[name]) == VOCABULARY
        weights[name] = weights[name][:KEPT_TOKENS]
    smaller = load_cut(family, model, weights, tmp_path, **{architecture.vocabulary_field: KEPT_TOKENS})
    inputs = tiny_inputs(model, vocabulary=KEPT_TOKENS)
    expected = answer(model, **inputs)[..., :KEPT_TOKENS]
    assert torch.allclose(answer(smaller, **inputs), expected, atol=1e-5)


def units(heads, size):
    return [head * size + i for head in heads for i in range(size)]


@pytest.mark.parametrize("family", [family for family in FAMILIES if can(family, "heads")])
def test_heads(family, tmp_path):
    """Two of four go: where two share a key and a value, as one group."""
    model = tiny_model(family)
    weights, names, changes = own_weights(model), names_of(model), {}
    for stack, layers in stacks_of(model):
        size = layers[0].get_submodule(stack.attention.output).weight.shape[1] // 4
        queries, shared = ([2, 3], [1]) if stack.key_value_heads_field else ([1, 3], [1, 3])
        changes |= {stack.heads_field: 2, stack.head_dim_field: size}
        if stack.key_value_heads_field:
            changes[stack.key_value_heads_field] = 1
        for layer in layers:
            for attention in attentions(stack):
                keep(weights, names, layer.get_submodule(attention.query), outputs=units(queries, size))
                keep(weights, names, layer.get_submodule(attention.key), outputs=units(shared, size))
                keep(weights, names, layer.get_submodule(attention.value), outputs=units(shared, size))
                keep(weights, names, layer.get_submodule(attention.output), inputs=units(queries, size))
                silence(layer.get_submodule(attention.output), units(queries, size))
        for module in stack.first_layer_modules:
            name = names[id(layers[0].get_submodule(module.path).weight)]
            weights[name] = weights[name][..., queries]
    smaller = load_cut(family, model, weights, tmp_path, **changes)
    assert torch.allclose(answer(smaller), answer(model), atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if not can(family, "heads")])
def test_heads_cannot_go_where_the_hidden_width_sets_their_size(family):
    for field in {stack.heads_field for stack in architecture_of(tiny_model(family, "")).stacks}:
        model = tiny_model(family, **{field: 2, "head_dim": 8})
        for stack, layers in stacks_of(model):
            parts = 3 if stack.attention.fused else 1
            query = layers[0].get_submodule(stack.attention.query).weight
            assert max(query.shape) // parts == 32  # and not 2 heads of 8


@pytest.mark.parametrize("family", [family for family in FAMILIES if can(family, "heads")])
def test_which_numbers_of_heads_the_config_takes(family):
    architecture = architecture_of(tiny_model(family, ""))
    (stack, *_) = architecture.stacks
    changes = {stack.heads_field: 3, stack.head_dim_field: 10}
    if stack.key_value_heads_field:
        changes[stack.key_value_heads_field] = 3
    if architecture.heads_divide_hidden and transformers.__version__.startswith("5."):  # 4 does not look
        with pytest.raises(Exception, match="not a multiple of the number of attention heads"):
            tiny_model(family, **changes)
    else:
        assert answer(tiny_model(family, **changes)).isfinite().all()
