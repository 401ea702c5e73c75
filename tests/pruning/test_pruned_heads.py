"""Checkpoints whose heads transformers 4 pruned come back to every transformers, with the same outputs."""

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.layouts import MODELING_FILE, save_pruned
from hf_shrink.pruning.pruned_heads import migrate_pruned_heads
from tests.architectures.models import HEADS, answer, auto_class, tiny_model
from tests.models import tiny_tokenizer
from tests.pruning.silencing import layers_of

PRUNED = {0: [1], 2: [0, 3]}  # by layer, of 4 heads of 8
FAMILIES = ("bert", "roberta", "distilbert", "vit", "gpt2")
INWARDS = {
    "bert": r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.",
    "distilbert": r"transformer\.layer\.(\d+)\.attention\.[qkv]_lin\.",
    "vit": r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.",
    "gpt2": r"h\.(\d+)\.attn\.c_attn\.",
}
OUTPUT = {
    "bert": r"encoder\.layer\.(\d+)\.attention\.output\.dense\.weight",
    "distilbert": r"transformer\.layer\.(\d+)\.attention\.out_lin\.weight",
    "vit": r"encoder\.layer\.(\d+)\.attention\.output\.dense\.weight",
    "gpt2": r"h\.(\d+)\.attn\.c_proj\.weight",
}


def kept_places(layer):
    return torch.tensor([8 * head + i for head in range(4) if head not in PRUNED.get(layer, ()) for i in range(8)])


def prune_as_4_does(family, weights):
    """What transformers 4's `prune_heads` leaves of a checkpoint."""
    names = "bert" if family == "roberta" else family
    for name, tensor in weights.items():
        fused = names == "gpt2"
        if match := re.search(INWARDS[names], name):
            places = kept_places(int(match.group(1)))
            if fused:
                places = torch.cat([places, places + 32, places + 64])
            weights[name] = tensor.index_select(tensor.ndim - 1 if fused else 0, places).contiguous()
        elif match := re.search(OUTPUT[names], name):
            weights[name] = tensor.index_select(0 if fused else 1, kept_places(int(match.group(1)))).contiguous()
    return weights


def write_checkpoint(model, family, folder):
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file(prune_as_4_does(family, load_file(file)), file, metadata={"format": "pt"})
    write_config(folder, pruned_heads={str(layer): heads for layer, heads in PRUNED.items()})
    return folder


def write_config(folder, **changes):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, **changes}))


@torch.no_grad()
def without_heads(model):
    """The model with the columns zeroed that read the pruned heads."""
    for stack, index, layer in layers_of(model):
        weight = layer.get_submodule(stack.attention.output).weight
        gone = [8 * head + i for head in PRUNED.get(index, ()) for i in range(8)]
        if model.config.model_type == "gpt2":
            weight[gone] = 0
        else:
            weight[:, gone] = 0
    return model


def load(family, folder, **kwargs):
    model, report = auto_class(HEADS[family][0]).from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_come_back_as_zeros_or_stay_out(family, tmp_path):
    source = write_checkpoint(tiny_model(family), family, tmp_path / "4")
    expected = answer(without_heads(tiny_model(family)))
    saved = migrate_pruned_heads(source, tmp_path / "pad")
    assert saved.layout == "pad"
    padded = load(family, tmp_path / "pad")
    assert torch.allclose(answer(padded), expected, atol=1e-6, rtol=0)
    assert "pruned_heads" not in json.loads((tmp_path / "pad" / "config.json").read_text()) or not (
        padded.config.pruned_heads
    )
    remote = migrate_pruned_heads(str(source), str(tmp_path / "remote"), layout="remote")
    assert remote.size_bytes < saved.size_bytes
    loaded = load(family, tmp_path / "remote", trust_remote_code=True)
    assert torch.allclose(answer(loaded), expected, atol=1e-6, rtol=0)
    queries = [layer.get_submodule(stack.attention.query).weight.shape for stack, _, layer in layers_of(loaded)]
    assert [max(shape) if family == "gpt2" else shape[0] for shape in queries] == (
        [72, 96, 48, 96] if family == "gpt2" else [24, 32, 16, 32]
    )


@pytest.mark.skipif(not transformers.__version__.startswith("4."), reason="transformers 5 cannot prune heads")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_4_wrote_itself(family, tmp_path):
    model = tiny_model(family)
    dense = write_checkpoint(model, family, tmp_path / "by hand")
    model.prune_heads(PRUNED)
    model.save_pretrained(tmp_path / "4")
    own, by_hand = (load_file(folder / "model.safetensors") for folder in (tmp_path / "4", dense))
    assert own.keys() == by_hand.keys()
    assert all(torch.equal(own[name], by_hand[name]) for name in own)
    migrate_pruned_heads(tmp_path / "4", tmp_path / "out")
    assert torch.allclose(answer(load(family, tmp_path / "out")), answer(model), atol=1e-6, rtol=0)
    assert save_pruned(model, tmp_path / "in memory").layout == "pad"  # what 5 would not load is not written
    assert torch.allclose(answer(load(family, tmp_path / "in memory")), answer(model), atol=1e-6, rtol=0)
    assert not AutoConfig.from_pretrained(tmp_path / "in memory").pruned_heads


@pytest.mark.parametrize("kind", ["shards", "pickle", "pickled shards"])
def test_every_kind_of_weight_file(kind, tmp_path):
    model = tiny_model("gpt2")
    source = write_checkpoint(model, "gpt2", tmp_path / "4")
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names = sorted(weights)
    halves = [names] if kind == "pickle" else [names[::2], names[1::2]]
    suffix, write = ("safetensors", save_file) if kind == "shards" else ("bin", torch.save)
    stem = "model" if kind == "shards" else "pytorch_model"
    files = [f"{stem}.{suffix}"] if kind == "pickle" else [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        write({name: weights[name] for name in half}, source / file)
    if kind != "pickle":
        index = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        (source / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    migrate_pruned_heads(source, tmp_path / "out")
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".json", ".json", ".safetensors"]
    assert torch.allclose(answer(load("gpt2", tmp_path / "out")), answer(without_heads(model)), atol=1e-6, rtol=0)


def test_what_lies_beside_goes_along(tmp_path):
    model = tiny_model("bert", "SequenceClassification", num_labels=3).half()
    source = write_checkpoint(model, "bert", tmp_path / "4")
    tiny_tokenizer().save_pretrained(source)
    (source / "README.md").write_text("A card.")
    (source / "flax_model.msgpack").write_bytes(b"0")
    migrate_pruned_heads(source, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "README.md"} <= names
    assert not names & {"flax_model.msgpack", MODELING_FILE}
    loaded = auto_class("SequenceClassification").from_pretrained(tmp_path / "out", dtype="auto")
    assert (loaded.dtype, loaded.config.num_labels) == (torch.float16, 3)


def test_what_is_refused(tmp_path):
    source = write_checkpoint(tiny_model("bert"), "bert", tmp_path / "4")
    with pytest.raises(ShrinkError, match="`output_dir` must be another folder"):
        migrate_pruned_heads(source, source)
    with pytest.raises(ShrinkError, match="is none. Check the path"):
        migrate_pruned_heads(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ShrinkError, match=r"`layout` must fit the model, got \"native\""):
        migrate_pruned_heads(source, tmp_path / "out", layout="native")

    def changed(name, **changes):
        folder = shutil.copytree(source, tmp_path / name)
        write_config(folder, **changes)
        return folder

    for name, changes, message in (
        ("none", {"pruned_heads": {}}, "there is nothing to migrate"),
        ("others", {"pruned_heads": {"0": [1], "2": [0]}}, r"must hold 3 of 4 heads.*got the shape \(.*16"),
        ("beyond", {"pruned_heads": {"0": [1], "2": [0, 3], "9": [0]}}, r"but lacks \[9\]"),
        ("family", {"model_type": "llama"}, "could prune .*got model_type 'llama'"),
        ("class", {"architectures": ["NoSuchModel"]}, "got 'NoSuchModel'"),
        ("head", {"architectures": ["BertForSequenceClassification"]}, r"but lacks .*classifier"),
    ):
        with pytest.raises(ShrinkError, match=message):
            migrate_pruned_heads(changed(name, **changes), tmp_path / "out")
    (source / "model.safetensors").unlink()
    with pytest.raises(ShrinkError, match="holds neither"):
        migrate_pruned_heads(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_transformers_5_does_not_load_them_itself(tmp_path):
    """Why there is anything to migrate; where this fails, it may go."""
    source = write_checkpoint(tiny_model("bert"), "bert", tmp_path / "4")
    if transformers.__version__.startswith("4."):
        model = auto_class("MaskedLM").from_pretrained(source)
        assert torch.allclose(answer(model), answer(without_heads(tiny_model("bert"))), atol=1e-6)
    else:
        with pytest.raises(RuntimeError, match="mismatch"):
            auto_class("MaskedLM").from_pretrained(source)
    assert AutoConfig.from_pretrained(source).model_type == "bert"
