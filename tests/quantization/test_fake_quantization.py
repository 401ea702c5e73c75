"""What is quantized of a model, and what it is afterwards."""

import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from hf_shrink.errors import MissingExtraError, ShrinkError
from hf_shrink.quantization import QuantizationAwareCallback
from hf_shrink.quantization.fake_quantization import enable, find_modules, make_fake_quantized, make_plain, put_on_grid
from hf_shrink.quantization.weight_grid import GRIDS, WeightGrid
from tests.models import randomize, tiny_bert_classifier
from tests.quantization.test_weight_grid import by_hand

INT4 = GRIDS["int4"]
TIED = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def masked_lm():
    torch.manual_seed(0)
    return randomize(BertForMaskedLM(BertConfig(**TIED)))


def test_without_torchao_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hf_shrink\[torchao\]"'):
        QuantizationAwareCallback()


def test_heads_and_embeddings_stay_in_float():
    found = find_modules(tiny_bert_classifier(num_hidden_layers=2), INT4)
    assert len(found) == 2 * 6 + 1  # six in a layer, and the pooler
    assert "classifier" not in found
    assert not any("embeddings" in name for name in found)


def test_ignored_modules_are_left_out():
    model = tiny_bert_classifier(num_hidden_layers=2)
    ignore = ["bert.pooler.dense", "re:.*attention"]
    found = find_modules(model, INT4, ignore)
    expected = {f"bert.encoder.layer.{i}.{part}.dense" for i in range(2) for part in ("intermediate", "output")}
    assert set(found) == expected


@pytest.mark.parametrize("ignore", [["bert.pooler"], ["re:.*no_such"], ["classifer"]])
def test_a_name_that_is_none_is_refused(ignore):
    model = tiny_bert_classifier(num_hidden_layers=1)
    if ignore == ["bert.pooler"]:  # is one, and holds the dense map: that is another name
        assert "bert.pooler.dense" in find_modules(model, INT4, ignore)
        return
    with pytest.raises(ShrinkError, match="`ignore` must name modules"):
        find_modules(model, INT4, ignore)
    with pytest.raises(ShrinkError, match="regular expressions"):
        find_modules(model, INT4, ["re:("])


def test_a_head_tied_to_quantized_embeddings_goes_with_them():
    model = masked_lm()
    assert not any("decoder" in name for name in find_modules(model, INT4))
    found = find_modules(model, INT4, (), GRIDS["int8"])
    table, head = "bert.embeddings.word_embeddings", "cls.predictions.decoder"
    assert found[table][1] == found[head][1] == GRIDS["int8"]
    assert found[table][0].weight is found[head][0].weight


def test_a_weight_that_something_in_float_shares_stays_in_float():
    # It would be rounded at the end, and the ignored module with it.
    found = find_modules(masked_lm(), INT4, ["cls.predictions.decoder"], GRIDS["int8"])
    assert not {"bert.embeddings.word_embeddings", "cls.predictions.decoder"} & set(found)
    model = tiny_bert_classifier(num_hidden_layers=2)
    one, other = (layer.output.dense for layer in model.bert.encoder.layer)
    other.weight = one.weight
    name = "bert.encoder.layer.{}.output.dense"
    assert {name.format(0), name.format(1)} <= set(find_modules(model, INT4))
    assert name.format(0) not in find_modules(model, INT4, [name.format(1)])


def test_an_unknown_family_is_named(caplog):
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 3))
    with caplog.at_level("WARNING", "hf_shrink.quantization.fake_quantization"):
        assert set(find_modules(model, INT4)) == {"0", "1"}
    assert "which module is its head" in caplog.text


def test_what_cannot_be_quantized_is_refused():
    model = tiny_bert_classifier(num_hidden_layers=1)
    with pytest.raises(ShrinkError, match="`group_size` must divide"):
        find_modules(model, WeightGrid(4, 48, False))
    with pytest.raises(ShrinkError, match="linear maps that `ignore` leaves"):
        find_modules(model, INT4, ["re:.*dense", "re:.*query", "re:.*key", "re:.*value"])
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2, n_positions=16))
    with pytest.raises(ShrinkError, match=r"torch\.nn\.Linear"):  # its Conv1D is none
        find_modules(gpt2, INT4)
    with pytest.raises(ShrinkError, match="with an adapter"):
        find_modules(get_peft_model(tiny_bert_classifier(), LoraConfig(target_modules=["query"])), INT4)
    with pytest.raises(ShrinkError, match="plain table"):
        find_modules(nn.Sequential(nn.Linear(32, 32)), INT4, (), INT4)
    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(32, 32))
    with pytest.raises(ShrinkError, match="in memory"):
        find_modules(meta, INT4)
    model.bert.pooler.dense.forward = lambda x: x
    with pytest.raises(ShrinkError, match="`device_map`"):
        find_modules(model, INT4)


@pytest.mark.parametrize("method", list(GRIDS))
def test_a_fake_quantized_module_computes_what_is_computed_by_hand(method):
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48))
    inputs = torch.randn(3, 5, 64)
    grid = GRIDS[method]
    weight = by_hand(model[0].weight.detach().numpy(), grid.bits, grid.group_size or 64, grid.symmetric)
    seen = inputs.numpy().astype(np.float64)
    if method == "int8":  # each token has a range of its own, with zero in it
        low, high = seen.min(-1, keepdims=True).clip(max=0), seen.max(-1, keepdims=True).clip(min=0)
        step = (high - low) / 255
        zero = -128 - np.round(low / step)
        seen = (np.clip(np.round(seen / step) + zero, -128, 127) - zero) * step
    expected = seen @ weight.T + model[0].bias.detach().numpy()
    modules = find_modules(model, grid)
    make_fake_quantized(modules, activations=method == "int8")
    np.testing.assert_allclose(model(inputs).detach().numpy(), expected, atol=2e-6)
    assert np.abs(expected - (inputs @ model[0].weight.T + model[0].bias).detach().numpy()).max() > 1e-3


def test_a_module_is_the_same_object_before_meanwhile_and_after():
    pytest.importorskip("torchao")
    model = masked_lm().train()
    modules = find_modules(model, INT4, (), GRIDS["int8"])
    names, parameters = list(model.state_dict()), list(model.parameters())
    dense, classes = model.bert.pooler, [type(module) for module in model.modules()]
    before = {name: id(module) for name, module in model.named_modules()}
    calls = []
    model.bert.encoder.layer[0].output.dense.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    make_fake_quantized(modules, activations=True)
    assert torch.equal(torch.get_rng_state(), state)  # or dropout would differ from a run without
    assert list(model.state_dict()) == names
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    model(torch.tensor([[2, 5, 6, 3]]))
    assert calls == [1]
    make_plain(modules)
    assert dense is model.bert.pooler
    assert {name: id(module) for name, module in model.named_modules()} == before
    assert [type(module) for module in model.modules()] == classes


def test_switched_off_it_computes_in_float():
    pytest.importorskip("torchao")
    model, ids = tiny_bert_classifier(num_hidden_layers=1), torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        before = model(ids).logits
        modules = find_modules(model, GRIDS["int2"], (), GRIDS["int4"])
        make_fake_quantized(modules, activations=True)
        rounded = model(ids).logits
        enable(modules, False)
        assert torch.equal(model(ids).logits, before)
        enable(modules, True)
        assert torch.equal(model(ids).logits, rounded)
        assert not torch.allclose(rounded, before, atol=1e-2)


def test_on_the_grid_a_plain_model_computes_what_the_fake_quantized_one_did():
    pytest.importorskip("torchao")
    model, ids = masked_lm(), torch.tensor([[2, 5, 6, 3]])
    modules = find_modules(model, GRIDS["int2"], (), INT4)
    make_fake_quantized(modules, activations=False)
    with torch.no_grad():
        rounded = model(ids).logits
        put_on_grid(modules)
        make_plain(modules)
        torch.testing.assert_close(model(ids).logits, rounded, atol=1e-5, rtol=1e-5)
