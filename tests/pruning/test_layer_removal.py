"""drop_layers: the model with its layers bypassed, but smaller, and stock transformers loads it."""

import copy
import json

import pytest
import torch
from torch import nn
from transformers import GenerationMixin

from hf_shrink.architectures import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.layer_removal import drop_layers
from tests.architectures.models import FAMILIES, HEADS, answer, tiny_inputs, tiny_model
from tests.pruning.bypassing import bypassed
from tests.stock import run_stock

GENERATORS = tuple(family for family in FAMILIES if HEADS[family][0] in ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq"))
DROPPED = [[1], [0, 2], [2, 1], [0]]

LOAD = """
import json, torch, transformers
from transformers import GenerationMixin
from transformers.utils import logging
logging.disable_progress_bar()
folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
found = {}
for family, head in cases.items():
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder / family, trust_remote_code=False)
    given = torch.load(folder / family / "inputs.pt")
    with torch.no_grad():
        found[family] = {"logits": model(**given["inputs"]).logits.tolist()}
    if given["start"]:
        tokens = GenerationMixin.generate(model, **given["start"], do_sample=False, max_new_tokens=6, min_new_tokens=6)
        found[family]["tokens"] = tokens.tolist()
print(json.dumps(found))
"""


def by_stack(model, dropped):
    return {name: [i for i in dropped if i < len(layers)] for name, layers in find_layers(model).items()}


def start(model):
    """What generation begins with."""
    inputs = tiny_inputs(model)
    inputs.pop("decoder_input_ids", None)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((2, 1), model.config.decoder_start_token_id)
    return inputs


def generate(model, **cache):  # past Whisper's own generate, which calls this one with deprecated arguments
    settings = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, **cache}
    return GenerationMixin.generate(model, **start(model), **settings)


@pytest.mark.parametrize("dropped", DROPPED, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_stays_answers_as_with_the_layers_bypassed(family, dropped):
    model = tiny_model(family)
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    usual = answer(model)
    with bypassed(model, by_stack(model, dropped)):
        expected = answer(model)
    smaller = drop_layers(model, dropped)
    torch.testing.assert_close(answer(smaller), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, usual, atol=1e-3)
    for name, layers in find_layers(smaller).items():
        kept = [i for i in range(len(find_layers(model)[name])) if i not in dropped]
        assert smaller.config.hf_shrink_layers[name] == kept
        assert len(layers) == len(kept)
    assert model.config.to_dict() == config
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in smaller.parameters()}


@pytest.mark.parametrize("family", ["t5", "whisper"])
@pytest.mark.parametrize("dropped", [{"encoder": [3, 0]}, {"decoder": [0]}, {"encoder": [0, 1, 2], "decoder": [1, 2]}])
def test_stacks_are_cut_apart(family, dropped):
    model = tiny_model(family)
    with bypassed(model, dropped):
        expected = answer(model)
    smaller = drop_layers(model, **{f"{name}_layers": layers for name, layers in dropped.items()})
    torch.testing.assert_close(answer(smaller), expected, rtol=1e-5, atol=1e-5)
    kept = {
        name: [i for i in range(n) if i not in dropped.get(name, [])] for name, n in (("encoder", 4), ("decoder", 3))
    }
    assert smaller.config.hf_shrink_layers == kept


@pytest.mark.parametrize("family", GENERATORS)
def test_generation_is_that_with_the_layers_bypassed(family):
    model = tiny_model(family)
    smaller = drop_layers(model, [0, 2])
    tokens = generate(smaller, use_cache=True)
    with bypassed(model, by_stack(model, [0, 2])):
        assert torch.equal(tokens, generate(model, use_cache=False))


@pytest.mark.slow
def test_a_process_without_us_loads_what_stays(tmp_path):
    models = {family: drop_layers(tiny_model(family), [0, 2]) for family in FAMILIES}
    for family, model in models.items():
        model.save_pretrained(tmp_path / family)
        given = {"inputs": tiny_inputs(model), "start": start(model) if family in GENERATORS else {}}
        torch.save(given, tmp_path / family / "inputs.pt")
    cases = json.dumps({family: HEADS[family][0] for family in FAMILIES})
    found = run_stock(LOAD, str(tmp_path), cases, cwd=tmp_path)
    for family, model in models.items():
        assert torch.allclose(torch.tensor(found[family]["logits"]), answer(model), atol=1e-6), family
        if family in GENERATORS:
            assert found[family]["tokens"] == generate(model).tolist(), family


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma2", "gemma3_text"])
def test_kinds_of_layers_are_cut_with_them(family):
    model = tiny_model(family)
    kinds = model.config.layer_types
    assert len(set(kinds)) == 2
    assert drop_layers(model, [0]).config.layer_types == kinds[1:]
    assert drop_layers(model, [1, 2]).config.layer_types == [kinds[0], kinds[3]]


def test_mode_and_what_is_frozen_stay():
    model = tiny_model("whisper", "AudioClassification", use_weighted_layer_sum=True).train()
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    smaller = drop_layers(model, [1])
    assert all(module.training for module in smaller.modules())
    assert {name for name, p in smaller.named_parameters() if p.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert smaller.layer_weights.shape == (4,)
    assert not any(module.training for module in drop_layers(model.eval(), [1]).modules())


def test_a_model_may_be_a_folder(tmp_path):
    model = tiny_model("bert")
    model.save_pretrained(tmp_path)
    assert torch.equal(answer(drop_layers(tmp_path, layers=[1])), answer(drop_layers(model, [1])))


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("bert", {}, "`layers` must be given, got None"),
        ("bert", {"layers": [0], "encoder_layers": [1]}, "`layers` must be given alone, got encoder_layers beside it"),
        ("bert", {"layers": []}, r"`layers` must hold at least one index in \[0, 3\]"),
        ("bert", {"layers": [4]}, r"in \[0, 3\] \(the model's encoder layers\), each once, got \[4\]"),
        ("bert", {"layers": [-1]}, r"got \[-1\]"),
        ("bert", {"layers": [1, 1]}, r"each once, got \[1, 1\]"),
        ("bert", {"layers": [3, 2, 1, 0]}, "must leave at least one of the model's 4 encoder layers"),
        ("bert", {"layers": 2}, r"must be a list of whole numbers, got 2. Write it as \[3, 4\]"),
        ("bert", {"layers": "02"}, "must be a list of whole numbers, got '02'"),
        ("bert", {"layers": [True]}, "must be a list of whole numbers"),
        ("bert", {"decoder_layers": [2]}, "`decoder_layers` must be left out for BertForMaskedLM"),
        ("t5", {"decoder_layers": [3]}, r"`decoder_layers` must hold at least one index in \[0, 2\]"),
        ("t5", {"layers": [3]}, r"in \[0, 2\] \(the model's decoder layers\)"),
        ("t5", {"layers": [0, 1, 2]}, "must leave at least one of the model's 3 decoder layers"),
    ],
)
def test_bad_layers_are_refused(family, given, message):
    with pytest.raises(ShrinkError, match=message):
        drop_layers(tiny_model(family), **given)


def test_bad_models_are_refused():
    with pytest.raises(ShrinkError, match="`model` must be a transformers model, got Linear"):
        drop_layers(nn.Linear(2, 2), [0])
    marked = tiny_model("bert")
    marked.config.quantization_config = {"quant_method": "torchao"}  # whose weights look like float ones
    with pytest.raises(ShrinkError, match="`model` must have float weights to drop layers, got a quantized Bert"):
        drop_layers(marked, [0])
