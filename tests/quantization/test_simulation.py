"""Quantized numbers in PyTorch: the values themselves, and a model that is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.simulation import (
    Simulation,
    activation_ranges,
    quantized_modules,
    rounded,
    rounded_blocks,
    stored_weight,
)
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier
from tests.quantization.texts import TEXTS, inputs

INT8 = Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations=None)
INT4 = Format(bits=4, group_size=8, symmetric=False, embedding_bits=4, activations=None)
DENSE = "bert.encoder.layer.1.output.dense"


def reference(rows, bits, group, symmetric):
    """Round-to-nearest as it is written in every manual, in float64."""
    out = np.zeros_like(rows, dtype=np.float64)
    for r, row in enumerate(rows.astype(np.float64)):
        for start in range(0, len(row), group):
            part = row[start : start + group]
            low, high = min(part.min(), 0), max(part.max(), 0)
            if symmetric:
                top = 2 ** (bits - 1) - 1
                scale = max(-low, high) / top
                out[r, start : start + group] = np.clip(np.rint(part / scale), -top, top) * scale
            else:
                scale = (high - low) / (2**bits - 1)
                zero = np.rint(-low / scale)
                out[r, start : start + group] = (np.clip(np.rint(part / scale) + zero, 0, 2**bits - 1) - zero) * scale
    return out


@pytest.mark.parametrize("numbers", [INT8, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D, nn.Embedding])
def test_stored_weights_are_the_nearest_on_their_grid(kind, numbers):
    torch.manual_seed(0)
    module = {
        nn.Linear: lambda: nn.Linear(20, 6),
        Conv1D: lambda: Conv1D(6, 20),
        nn.Embedding: lambda: nn.Embedding(6, 20),
    }[kind]()  # 20 inputs: the last group of 8 is not full
    rows = module.weight.detach().T if kind is Conv1D else module.weight.detach()
    expected = reference(rows.numpy(), numbers.bits, numbers.group_size or 20, numbers.symmetric)
    stored = stored_weight(module, numbers)
    assert stored.shape == module.weight.shape
    step = np.abs(rows.numpy()).max() / 7
    np.testing.assert_allclose((stored.T if kind is Conv1D else stored).numpy(), expected, atol=1e-4 * step)


def test_embeddings_have_bits_of_their_own():
    module = nn.Embedding(4, 16)
    coarse = stored_weight(module, Format(8, None, True, 4, None))
    assert all(len(row.unique()) <= 15 for row in coarse)
    model = tiny_bert_classifier(num_hidden_layers=1)
    kept = quantized_modules(model, Format(8, None, True, 32, None))
    assert not [name for name in kept if "embeddings" in name]
    assert set(quantized_modules(model, INT8)) - set(kept) == {
        f"bert.embeddings.{part}_embeddings" for part in ("word", "position", "token_type")
    }
    assert "classifier" in kept


def test_activations_are_rounded_to_8_bits_with_a_zero_point():
    values = torch.tensor([-1.0, -0.3, 0.0, 0.004, 0.5, 3.0])
    scale = 3 / 255  # 3.0 is clipped
    expected = [(min(max(round(v / scale) + 85, 0), 255) - 85) * scale for v in values.tolist()]
    assert rounded(values, -1.0, 2.0).tolist() == pytest.approx(expected, abs=1e-6)
    assert rounded(values, -1.0, 2.0)[-1] == pytest.approx(2.0)
    assert rounded(values, -1.0, 2.0)[2] == 0
    assert (rounded(torch.tensor([5.0, 6.0]), 5.0, 6.0) - torch.tensor([5.0, 6.0])).abs().max() < 6 / 255
    assert rounded(torch.zeros(3), 0.0, 0.0).tolist() == [0, 0, 0]


def answer(model, batch=None):
    with torch.no_grad():
        return model(**(inputs() if batch is None else batch)).logits


def test_dynamic_ranges_are_those_of_the_batch():
    model = tiny_bert_classifier(num_hidden_layers=1)
    simulation = Simulation(model, Format(8, None, True, 8, "dynamic"))
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    expected = answer(model)
    with simulation.quantized(["classifier"]):
        actual = answer(model)
    given = seen[0]
    weight = stored_weight(model.classifier, INT8)
    by_hand = rounded(given, given.min().item(), given.max().item()) @ weight.T + model.classifier.bias
    torch.testing.assert_close(actual, by_hand)
    assert not torch.equal(actual, expected)


def test_each_block_of_a_row_has_a_range_of_its_own():
    values = torch.tensor([[1.0, -2.0, 0.004, 300.0, 0.5, 3.0]])
    found = rounded_blocks(values, 2)
    assert found.shape == values.shape
    steps = [2 / 127, 2 / 127, 300 / 127, 300 / 127, 3 / 127, 3 / 127]
    expected = [round(v / s) * s for v, s in zip(values[0].tolist(), steps, strict=True)]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert rounded_blocks(torch.tensor([[4.0, 0.0, -1.0]]), 2)[0].tolist() == pytest.approx([4.0, 0.0, -1.0])
    model = tiny_bert_classifier(num_hidden_layers=1)
    numbers = Format(8, 16, False, 8, "block")
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    answer(model)
    with Simulation(model, numbers).quantized(["classifier"]):
        actual = answer(model)
    by_hand = rounded_blocks(seen[0], 16) @ stored_weight(model.classifier, numbers).T + model.classifier.bias
    torch.testing.assert_close(actual, by_hand)


def test_static_ranges_are_those_of_the_calibration_rows():
    model = tiny_bert_classifier(num_hidden_layers=1)
    numbers = Format(8, None, True, 8, "static")
    batches = [inputs(TEXTS[:1]), inputs(TEXTS[1:3])]
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for batch in batches:
        answer(model, batch)
    low, high = min(s.min() for s in seen).item(), max(s.max() for s in seen).item()
    assert activation_ranges(model, {"classifier": model.classifier}, batches) == {"classifier": (low, high)}
    simulation = Simulation(model, numbers, batches)
    with simulation.quantized(["classifier"]):
        actual = answer(model)
    by_hand = rounded(seen[-1], low, high) @ stored_weight(model.classifier, numbers).T + model.classifier.bias
    torch.testing.assert_close(actual, by_hand)
    with pytest.raises(ShrinkError, match="`batches` must hold at least 1 batch"):
        Simulation(model, numbers)


@pytest.mark.parametrize("activations", [None, "dynamic", "static"])
def test_the_model_is_as_before_also_after_an_error(activations):
    model = tiny_bert_classifier(num_hidden_layers=2)
    model.train()
    model.bert.pooler.dense.weight.requires_grad_(False)
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}
    hooks = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    simulation = Simulation(model, Format(4, 8, False, 4, activations), [inputs()])
    assert model.training

    def fail():
        with simulation.quantized(simulation.modules):
            assert not torch.equal(model.get_submodule(DENSE).weight, before[f"{DENSE}.weight"][1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert {name: len(module._forward_pre_hooks) for name, module in model.named_modules()} == hooks


def test_a_shared_weight_changes_in_the_module_alone():
    model = tiny_model("gpt2", tie_word_embeddings=True)
    assert model.lm_head.weight is model.transformer.wte.weight
    simulation = Simulation(model, INT4)
    with simulation.quantized(["lm_head"]):
        assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_only_the_named_modules_are_quantized():
    model = tiny_bert_classifier(num_hidden_layers=2)
    simulation = Simulation(model, INT4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with simulation.quantized([DENSE]):
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == [f"{DENSE}.weight"]
