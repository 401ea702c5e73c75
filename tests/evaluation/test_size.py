import pytest
import torch
from transformers import AutoModelForMaskedLM, BertConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_parameters, size_on_disk
from tests.evaluation.builders import classifier, tiny_gpt2


def test_weights_alone_are_counted(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_size
    (tmp_path / "optimizer.pt").write_bytes(b"0" * 5000)
    (tmp_path / "training_args.bin").write_bytes(b"0" * 5000)
    (tmp_path / "model.onnx").write_bytes(b"0" * 5000)  # the same weights once more
    assert size_on_disk(tmp_path) == weights
    assert weights == pytest.approx(4 * count_parameters(model), rel=0.2)  # float32 and a header


def test_shards_and_external_data_are_part_of_it(tmp_path):
    sharded = tmp_path / "sharded"
    classifier().save_pretrained(sharded, max_shard_size="20KB")
    shards = list(sharded.glob("*.safetensors"))
    assert len(shards) > 1
    assert size_on_disk(sharded) == sum(shard.stat().st_size for shard in shards)
    for name, size in {
        "model.onnx": 10,
        "model.onnx_data": 100,
        "model.onnx.data": 1000,
        "other.onnx": 10_000,
    }.items():
        (tmp_path / name).write_bytes(b"0" * size)
    assert size_on_disk(tmp_path) == 11_110
    assert size_on_disk(tmp_path / "model.onnx") == 1110


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"0" * 1234)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    assert size_on_disk(tmp_path / "snapshot") == 1234


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ShrinkError, match="`folder` must hold weight files"):
        size_on_disk(tmp_path)


def test_tied_parameters_count_once():
    tied, free = tiny_gpt2(), tiny_gpt2(tie_word_embeddings=False)
    table = tied.config.vocab_size * tied.config.hidden_size
    assert count_parameters(free) == count_parameters(tied) + table
    shared = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False))
    assert count_parameters(shared) == 32
    shared[1].weight = torch.nn.Parameter(shared[0].weight.data)  # another parameter over the same storage
    assert count_parameters(shared) == 16


def test_the_meta_device_gives_the_same_count():
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    with torch.device("meta"):
        shapes = AutoModelForMaskedLM.from_config(config)
    assert count_parameters(shapes) == count_parameters(AutoModelForMaskedLM.from_config(config))
