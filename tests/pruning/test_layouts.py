"""What `save_pruned` writes loads where it says, in a process without hf_shrink, and computes what the model did."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, GenerationMixin

from hf_shrink.architectures import architecture_of, register_architecture
from hf_shrink.architectures import known as known_architectures
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model
from hf_shrink.pruning import modeling_hf_shrink
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.free_shapes import RECORD, cut_freely, fill_up
from hf_shrink.pruning.layouts import MODELING_FILE, find_fillings, save_pruned
from hf_shrink.versions import base_model
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_inputs, tiny_model
from tests.models import tiny_tokenizer
from tests.pruning.silencing import kill_heads, kill_units
from tests.pruning.test_reload import GENERATORS, generation_inputs
from tests.stock import run_stock

TOKENS = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}


def uneven(family, head=None):
    """A model with other numbers of live units and heads in each block."""
    model = kill_units(tiny_model(family, head))
    grouped = architecture_of(model).stacks[0].key_value_heads_field
    return kill_heads(model, [[0], [0, 1], [1], [0]] if grouped else [[0, 2], [2], [2, 0, 1], [0]])


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


STOCK = """
import torch, transformers
jobs, found = torch.load(sys.argv[1], weights_only=True), {}
for name, (auto, folder, remote, inputs, prompt, options) in jobs.items():
    auto = getattr(transformers, auto)
    model, report = auto.from_pretrained(
        folder, trust_remote_code=remote, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (name, report)
    assert remote == type(model).__module__.endswith("modeling_hf_shrink"), (name, type(model))
    logits = model(**inputs).logits
    logits.float().pow(2).mean().backward()
    # past Whisper's own generate, which calls this one with deprecated arguments
    tokens = transformers.GenerationMixin.generate(model, **prompt, **options) if prompt else None
    found[name] = (logits.detach(), tokens, sum(parameter.numel() for parameter in model.parameters()))
torch.save(found, sys.argv[2])
print("null")
"""


@pytest.mark.slow
def test_every_family_in_a_fresh_process(tmp_path):
    models, jobs = {family: uneven(family) for family in FAMILIES}, {}
    for family, model in models.items():
        inputs = tiny_inputs(model)
        prompt = generation_inputs(model, inputs) if HEADS[family][0] in GENERATORS else {}
        for layout in ("pad", "remote"):
            folder = tmp_path / f"{layout} {family}"
            assert save_pruned(model, folder, layout).layout == layout
            auto = auto_class(HEADS[family][0]).__name__
            jobs[folder.name] = (auto, str(folder), layout == "remote", inputs, prompt, TOKENS)
    torch.save(jobs, tmp_path / "jobs")
    run_stock(STOCK, str(tmp_path / "jobs"), str(tmp_path / "found"), cwd=tmp_path)
    found = torch.load(tmp_path / "found", weights_only=True)
    assert found.keys() == jobs.keys()
    for name, (logits, tokens, parameters) in found.items():
        layout, family = name.split()
        *_, inputs, prompt, _ = jobs[name]
        assert torch.allclose(logits, answer(models[family], **inputs), atol=1e-5, rtol=0), name
        if prompt:
            assert torch.equal(tokens, GenerationMixin.generate(models[family], **prompt, **TOKENS)), name
        padded, free = compact(models[family]), cut_freely(models[family])
        assert parameters == count(free if layout == "remote" else padded), name
        assert count(free) < count(padded) < count(models[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_free_shape_holds_no_dead_unit_and_fills_up_again(family):
    model = uneven(family)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    free = cut_freely(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert RECORD not in model.config.to_dict()
    assert torch.allclose(answer(free), answer(model), atol=1e-5)
    filled = fill_up(free)
    assert torch.allclose(answer(filled), answer(model), atol=1e-5)
    assert filled.config.to_dict() == model.config.to_dict()
    assert {n: p.shape for n, p in filled.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert count(cut_freely(filled)) == count(free)
    assert fill_up(model) is model


@pytest.mark.parametrize(
    ("family", "head", "others"),
    [
        ("bert", "MaskedLM", ("", "SequenceClassification", "QuestionAnswering")),
        ("gpt2", "CausalLM", ("", "TokenClassification")),
        ("t5", "Seq2SeqLM", ("",)),
        ("whisper", "SpeechSeq2Seq", ("", "AudioClassification")),
        ("llama", "SequenceClassification", ("", "CausalLM")),
        ("vit", "ImageClassification", ("",)),
    ],
)
def test_the_remote_layout_takes_any_head_of_the_family(family, head, others, tmp_path):
    model = uneven(family, head)
    save_pruned(model, tmp_path, "remote")
    for other in others:
        loaded = auto_class(other).from_pretrained(tmp_path, trust_remote_code=True)
        assert type(loaded).__module__.endswith("modeling_hf_shrink")
        states = answer(loaded, **tiny_inputs(loaded))
        if other == "" and (base := base_model(model)) is not model:
            assert torch.allclose(states, answer(base, **tiny_inputs(loaded)), atol=1e-5)
        assert states.isfinite().all()


def test_a_remote_model_goes_on(tmp_path):
    """Loaded, it is recognised: saved again as it is, padded, pruned further, and refused by compact."""
    model = uneven("bert")
    save_pruned(model, tmp_path / "remote", "remote")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "remote", trust_remote_code=True)
    with pytest.raises(ShrinkError, match=r"equally wide layers.*got 9 to 22 FFN units.*layout=\"pad\""):
        compact(loaded)
    assert save_pruned(loaded, tmp_path / "auto").layout == "pad"
    padded = AutoModelForMaskedLM.from_pretrained(tmp_path / "auto")
    assert RECORD not in padded.config.to_dict()
    assert "auto_map" not in padded.config.to_dict()
    loaded.save_pretrained(tmp_path / "plain")  # transformers' own
    with torch.no_grad():
        padded.bert.encoder.layer[2].output.dense.weight[:, 5:] = 0
    for again in (loaded, AutoModelForMaskedLM.from_pretrained(tmp_path / "plain", trust_remote_code=True), padded):
        save_pruned(again, tmp_path / "again", "remote")
        reloaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
        assert torch.allclose(answer(reloaded), answer(again), atol=1e-5)
    save_pruned(padded, tmp_path / "again", "pad")  # over a remote one
    assert not (tmp_path / "again" / MODELING_FILE).exists()
    assert torch.allclose(answer(AutoModelForMaskedLM.from_pretrained(tmp_path / "again")), answer(padded), atol=1e-5)


def test_a_remote_model_is_not_loaded_without_its_code(tmp_path):
    save_pruned(uneven("bert"), tmp_path, "remote")
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(ShrinkError, match="trust_remote_code=True"):
        load_model(tmp_path)
    assert count(load_model(tmp_path, trust_remote_code=True)) < count(tiny_model("bert"))


def test_the_code_takes_models_that_are_whole():
    model = tiny_model("bert")
    other = modeling_hf_shrink.BertForMaskedLM(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(answer(other), answer(model))
    with pytest.raises(AttributeError):
        modeling_hf_shrink.NoSuchModel  # noqa: B018


def test_a_new_model_of_free_shape_starts_as_transformers_starts_it(tmp_path):
    save_pruned(uneven("bert"), tmp_path, "remote")
    config = AutoConfig.from_pretrained(tmp_path)
    config.name_or_path = str(tmp_path)
    fresh = AutoModel.from_config(config, trust_remote_code=True)
    weight = fresh.encoder.layer[1].intermediate.dense.weight
    assert weight.shape == (9, 32)
    assert 0.1 < weight.std() < 0.3  # the config says 0.2


def test_native_where_all_dead_units_go(tmp_path):
    model = kill_units(tiny_model("bert"), live=(22, 22, 22, 22))
    assert save_pruned(model, tmp_path).layout == "native"
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert loaded.config.intermediate_size == 22
    assert torch.allclose(answer(loaded), answer(model), atol=1e-5)
    whole = tiny_model("bert")  # nothing is dead
    assert save_pruned(whole, tmp_path, "native").layout == "native"
    assert torch.equal(answer(AutoModelForMaskedLM.from_pretrained(tmp_path)), answer(whole))


def test_native_is_refused_where_dead_units_would_stay(tmp_path):
    with pytest.raises(ShrinkError, match=r"13 of 22 in bert\.encoder\.layer\.1\.output\.dense.*\"pad\".*\"remote\""):
        save_pruned(kill_units(tiny_model("bert")), tmp_path / "out", "native")
    heads = kill_heads(tiny_model("bert"), [[0, 1, 2]])
    with pytest.raises(ShrinkError, match=r"1 of 4 in bert\.encoder\.layer\.0\.attention\.output\.dense"):
        save_pruned(heads, tmp_path / "out", "native")
    assert not (tmp_path / "out").exists()
    assert not find_fillings(compact(kill_heads(tiny_model("llama"), [[0], [1]])))


def test_a_block_without_any_live_unit_keeps_one(tmp_path):
    model = kill_heads(kill_units(tiny_model("distilbert"), live=(0, 3, 0, 40)), [[]])
    save_pruned(model, tmp_path, "remote")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path, trust_remote_code=True)
    assert [layer.ffn.lin1.out_features for layer in loaded.distilbert.transformer.layer] == [1, 3, 1, 40]
    assert torch.allclose(answer(loaded), answer(model), atol=1e-5)


def test_what_is_said_and_saved_beside(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_shrink"):
        saved = save_pruned(uneven("bert"), str(tmp_path), "remote", processing_class=tiny_tokenizer())
    first, last = (r.getMessage() for r in caplog.records if r.name.startswith("hf_shrink"))
    assert "trust_remote_code=True" in first
    assert f"layout remote, {saved.size_bytes} bytes" in last
    assert saved.path == tmp_path
    assert saved.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert (tmp_path / "tokenizer.json").is_file()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"]["AutoModelForMaskedLM"] == "modeling_hf_shrink.BertForMaskedLM"
    assert config["architectures"] == ["BertForMaskedLM"]
    assert config[RECORD]["encoder.layer.1.intermediate.dense"] == {
        **{"weight": [9, 32], "bias": [9]},
        **{"out_features": 9, "in_features": 32},
    }
    assert "hf_shrink." not in (tmp_path / MODELING_FILE).read_text().replace("modeling_hf_shrink.", "")


def test_what_cannot_be_saved(tmp_path, monkeypatch):
    model = uneven("bert")
    with pytest.raises(ShrinkError, match="`layout` must be one of auto, native, pad, remote, got 'zip'"):
        save_pruned(model, tmp_path, "zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(ShrinkError, match="`path` must be a folder"):
        save_pruned(model, tmp_path / "file")
    with pytest.raises(ShrinkError, match="transformers model to save"):
        save_pruned(torch.nn.Linear(2, 2), tmp_path)
    odd = type("OddBert", (type(model),), {})(model.config)
    with pytest.raises(ShrinkError, match="of a class that transformers has, got OddBert"):
        save_pruned(odd, tmp_path)
    wider = tiny_model("bert")
    wider.bert.pooler = torch.nn.Linear(32, 32)
    with pytest.raises(ShrinkError, match="as its config describes it"):
        save_pruned(wider, tmp_path)


def test_a_family_whose_head_counts_are_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(known_architectures, "_KNOWN", list(known_architectures._KNOWN))
    family = architecture_of(tiny_model("bert"))
    (stack,) = family.stacks
    plain = replace(stack, attention=replace(stack.attention, head_counts=None))
    register_architecture(replace(family, stacks=(plain,)))
    with pytest.raises(ShrinkError, match=r"\"remote\" with dead heads in bert\.encoder\.layer\.0.*head_counts"):
        save_pruned(uneven("bert"), tmp_path / "out", "remote")
    assert save_pruned(uneven("bert"), tmp_path / "pad", "pad").layout == "pad"
    save_pruned(kill_units(tiny_model("bert")), tmp_path / "units", "remote")  # heads are whole
