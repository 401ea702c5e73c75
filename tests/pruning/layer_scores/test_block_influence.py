"""Block influence, worked out once more in double precision from what the layers read and return."""

import pytest
import torch

from hf_shrink.architectures import find_layers
from hf_shrink.pruning import layer_importance
from hf_shrink.pruning.layer_scores.block_influence import block_influence
from tests.architectures.models import tiny_model
from tests.models import tiny_tokenizer
from tests.pruning.calibrating import read, sample
from tests.pruning.test_calibration import seq2seq_labels


def watch(layer):
    """What a layer reads and returns from now on; the first is copied before the layer runs."""
    read_states, made_states = [], []

    def before(layer, args, kwargs):
        read_states.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    def after(layer, args, output):
        made_states.append((output[0] if isinstance(output, tuple) else output)[0].clone())

    layer.register_forward_pre_hook(before, with_kwargs=True)
    layer.register_forward_hook(after)
    return read_states, made_states


def influence(read_states, made_states):
    x, y = torch.cat(read_states), torch.cat(made_states)
    return 1 - ((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).mean().item()


def by_hand(model, data):
    """Row by row, so without padding."""
    seen = {name: [watch(layer) for layer in layers] for name, layers in find_layers(model).items()}
    with torch.no_grad():
        for row in data.with_format("torch"):
            model(**{k: v[None].double() if v.is_floating_point() else v[None] for k, v in row.items()})
    return {name: [influence(*states) for states in layers] for name, layers in seen.items()}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "vit", "t5"])
def test_the_mean_is_over_real_positions(family):
    head = "TokenClassification" if family == "bert" else None  # a masked language model reads masked rows
    model = tiny_model(family, head).double()
    data = sample(model, **({"labels": seq2seq_labels([3, 9, 2, 4, 6])} if family == "t5" else {}))
    options = {"processing_class": None if family == "vit" else tiny_tokenizer(), "batch_size": 5}
    found = layer_importance(model, data, **options)
    expected = by_hand(model, data)
    assert found.keys() == expected.keys()
    for stack, scores in expected.items():
        assert found[stack] == pytest.approx(scores, rel=1e-5, abs=1e-6)


def test_small_turns_keep_their_digits():
    # 1 - cos in single precision would be 0 or 6e-8.
    model = tiny_model("llama")
    with torch.no_grad():
        for output in (model.model.layers[1].self_attn.o_proj, model.model.layers[1].mlp.down_proj):
            output.weight.mul_(1e-4)
    data = sample(model)
    single = block_influence(model, find_layers(model), read(model, data))["decoder"][1]
    model.double()
    double = by_hand(model, data)["decoder"][1]
    assert 0 < double < 1e-7
    assert single == pytest.approx(double, rel=0.05)
