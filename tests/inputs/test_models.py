import json
import shutil

import pytest
import torch
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTImageProcessor, WhisperConfig, WhisperForConditionalGeneration

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import base_folder, load_model, load_processing_class, model_name
from tests.models import tiny_bert_classifier, tiny_tokenizer


@pytest.fixture
def model():
    return tiny_bert_classifier()


@pytest.fixture
def folder(model, tmp_path):
    place = tmp_path / "tickets"
    model.save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(10).reshape(2, 5)).logits


def test_folder(model, folder):
    for source in (folder, str(folder)):
        loaded = load_model(source)
        assert torch.equal(logits(loaded), logits(model))
        assert not loaded.training


def test_instance_comes_back_as_it_is(model):
    model.train()
    assert load_model(model) is model
    assert model.training


def test_task_gives_the_head_and_options_reach_the_config(folder):
    with pytest.raises(ShrinkError, match="`model` must hold weights that fit .*add ignore_mismatched_sizes=True"):
        load_model(folder, task="token_classification", num_labels=7)
    loaded = load_model(folder, task="token_classification", num_labels=7, ignore_mismatched_sizes=True)
    assert type(loaded).__name__ == "BertForTokenClassification"
    assert loaded.config.num_labels == 7


def test_speech_models_are_loaded_as_such(tmp_path):
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=8, **sizes, **ids)
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    assert type(load_model(tmp_path)).__name__ == "WhisperForConditionalGeneration"


@pytest.mark.parametrize("source", ["./gone", "/gone/for/good", "a/b/c"])
def test_folder_that_does_not_exist(source):
    with pytest.raises(ShrinkError, match=f"`model` must be a folder or a Hub id, but {source} does not exist"):
        load_model(source)


def test_file_instead_of_a_folder(folder):
    with pytest.raises(ShrinkError, match=r"but .*config.json is a file. Check the path"):
        load_model(folder / "config.json")


def test_neither_model_nor_name():
    with pytest.raises(ShrinkError, match="`model` must be a model, a folder or a Hub id, got int"):
        load_model(3)


def test_unknown_task_is_refused_before_anything_is_read():
    with pytest.raises(ShrinkError, match="`task` must be one of"):
        load_model("./gone", task="ner")


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ShrinkError, match="`model` must hold a config.json, but .* does not. Save a model there"):
        load_model(folder)


def test_folder_of_an_adapter(model, tmp_path):
    get_peft_model(model, LoraConfig(target_modules=["query"])).save_pretrained(tmp_path)
    with pytest.raises(ShrinkError, match=r"config.json.*PEFT adapter.*merge_and_unload\(\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_not_opened(model, folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"whatever opens this has lost")
    (folder / "training_args.bin").write_bytes(b"")
    with pytest.raises(ShrinkError, match=f"has its weights only as pickles.*: {name}. If you trust .* convert them"):
        load_model(folder)


def test_variant_that_is_a_pickle_is_not_opened(model, folder):
    torch.save(model.state_dict(), folder / "pytorch_model.fp16.bin")
    with pytest.raises(ShrinkError, match="`model` must be a model that can be read"):
        load_model(folder, variant="fp16")


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"")
    with pytest.raises(ShrinkError, match=r"`model` must hold weights, but .* has no \*.safetensors or \*.onnx file"):
        load_model(folder)


def test_broken_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ShrinkError, match="`model` must be a model that can be read"):
        load_model(folder)


def test_broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "bert", ')
    with pytest.raises(ShrinkError, match="`model` must be a model that can be read"):
        load_model(folder)


def test_code_of_a_checkpoint_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ShrinkError, match="`model` must be a model that can be read"):
        load_model(folder)


# ------------------------------------------------------------------ processing classes
def test_tokenizer_of_a_folder_and_of_a_model(folder):
    for source in (folder, str(folder), load_model(folder)):
        assert load_processing_class(source)("my card")["input_ids"] == [2, 5, 6, 3]


def test_image_processor(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 4, "width": 4}).save_pretrained(tmp_path)
    assert load_processing_class(tmp_path).size["height"] == 4


def test_folder_without_a_tokenizer(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ShrinkError, match="`processing_class` must be saved beside the model, but .* holds no tokenizer"
    ):
        load_processing_class(tmp_path)


def test_model_that_was_not_loaded(model):
    with pytest.raises(
        ShrinkError, match="`processing_class` must be given, because this BertForSequenceClassification"
    ):
        load_processing_class(model)
    with pytest.raises(
        ShrinkError, match="`processing_class` must be a folder or a Hub id, but ./gone does not exist"
    ):
        load_processing_class("./gone")


# ------------------------------------------------------------------ names
def test_names_never_hold_a_path(model, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    loaded = load_model(folder)
    for named in (
        folder,
        f"{folder}/",
        "./tickets",
        loaded,
        get_peft_model(loaded, LoraConfig(target_modules=["query"])),
    ):
        assert model_name(named) == "tickets"
    assert model_name("org/tickets-small") == "org/tickets-small"
    assert model_name("/cache/hub/models--org--tickets/snapshots/0a1b2c") == "org/tickets"
    assert model_name("/nowhere/any/more") == "more"
    assert model_name(model) == "BertForSequenceClassification"
    assert model_name(nn.Linear(1, 1)) == "Linear"
    monkeypatch.chdir(folder)
    assert model_name(".") == "tickets"


def test_base_folder(model, folder):
    assert base_folder(folder) == base_folder(load_model(folder)) == folder
    assert base_folder(model) is None
    assert base_folder(nn.Linear(1, 1)) is None
    assert base_folder("org/never-downloaded") is None
    loaded = load_model(folder)
    shutil.rmtree(folder)
    assert base_folder(loaded) is None


# ------------------------------------------------------------------ the Hub
def upload(repo_id, folder, token="hf_write", **settings):
    api = HfApi(token=token)
    api.create_repo(repo_id, exist_ok=True, **settings)
    api.upload_folder(repo_id=repo_id, folder_path=folder)


def test_model_of_the_hub(hub, model, folder):
    upload("user/tickets", folder)
    loaded = load_model("user/tickets")
    assert torch.equal(logits(loaded), logits(model))
    assert model_name(loaded) == "user/tickets"
    assert (base_folder(loaded) / "config.json").is_file()
    assert model_name(base_folder(loaded)) == "user/tickets"
    assert load_processing_class(loaded)("my card")["input_ids"] == [2, 5, 6, 3]
    assert load_processing_class("user/tickets", revision="main").pad_token == "[PAD]"


def test_missing_private_gated_and_unknown(hub, folder):
    upload("other/private", folder, "hf_other", private=True)
    upload("other/gated", folder, "hf_other")
    HfApi(token="hf_other").update_repo_settings("other/gated", gated="auto")
    for name in ("user/never", "never", "other/private"):
        with pytest.raises(ShrinkError, match=f"got '{name}': there is no such folder here and no such repository"):
            load_model(name)
    with pytest.raises(ShrinkError, match="its authors grant access one by one.*/other/gated and log in with `hf"):
        load_model("other/gated")
    with pytest.raises(ShrinkError, match="'not a name': there is no such folder here, and no repository can bear"):
        load_model("not a name")


def test_wrong_revision_and_wrong_token(hub, folder):
    upload("user/revisions", folder)
    with pytest.raises(ShrinkError, match="'user/revisions': it lacks this revision. Choose a branch, tag or commit"):
        load_model("user/revisions", revision="v9")
    with pytest.raises(ShrinkError, match="'user/revisions': .*`hf auth login`"):
        load_model("user/revisions", token="hf_wrong")


def test_pickles_on_the_hub_are_not_downloaded(hub, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    upload("user/pickles", folder)
    hub.requests.clear()
    with pytest.raises(ShrinkError, match=r"user/pickles has its weights only as pickles.*: pytorch_model.bin"):
        load_model("user/pickles")
    assert not [request for request in hub.requests if "resolve" in request["path"]]


def test_no_network(hub, model, folder, no_network):
    upload("user/offline", folder)
    load_model("user/offline")
    load_processing_class("user/offline")
    no_network()
    assert torch.equal(logits(load_model("user/offline")), logits(model))
    assert load_processing_class("user/offline")("my card")["input_ids"] == [2, 5, 6, 3]
    for load in (load_model, load_processing_class):
        with pytest.raises(ShrinkError, match="'user/never': the Hub cannot be reached and the cache lacks it. Check"):
            load("user/never")


def test_hub_in_trouble(hub):
    hub.fault("status", path="/api/models/user/trouble", status=503, times=99)
    with pytest.raises(ShrinkError, match="'user/trouble': the Hub answered 503. Try again later"):
        load_model("user/trouble")
    hub.clear_faults()
    hub.fault("cut", path="/api/models/user/trouble", times=99)
    with pytest.raises(ShrinkError, match="'user/trouble': the Hub cannot be reached"):
        load_model("user/trouble")
