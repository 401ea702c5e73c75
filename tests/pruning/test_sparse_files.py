import gc
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, BertModel

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import sparse_files, sparse_format
from hf_shrink.pruning.sparse_files import SPARSE_FILE, load_sparse, save_sparse
from hf_shrink.pruning.sparse_format import CODES, read_shapes, read_tensors, write_tensors
from tests.architectures.models import FAMILIES, HEADS, answer, auto_class, tiny_inputs, tiny_model

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def zero_share(model, share=0.7):
    """Set a random share of every parameter to zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand(parameter.shape, generator=generator) < share] = 0
    return model


def same_bits(one, other):
    def raw(tensor):
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(raw(one), raw(other))


def assert_same_model(one, other):
    weights, others = one.state_dict(), other.state_dict()
    assert list(weights) == list(others)
    for name, weight in weights.items():
        assert same_bits(weight, others[name]), name
    assert [(n, p.requires_grad) for n, p in one.named_parameters()] == [
        (n, p.requires_grad)
        for n, p in other.named_parameters()  # names of tied ones show once in both
    ]


def weights_size(folder):
    file = folder / SPARSE_FILE
    return file.stat().st_size - 8 - int.from_bytes(file.read_bytes()[:8], "little")


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_every_type_comes_back_to_the_last_bit(dtype, monkeypatch, tmp_path):
    monkeypatch.setattr(sparse_format, "CHUNK", 16)
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 256, (37, 8 * dtype.itemsize), generator=generator, dtype=torch.uint8)
    if dtype == torch.bool:
        words %= 2
    some = torch.rand(37, 8, 1, generator=generator) < 0.2
    sparse = (words.view(37, 8, -1) * some).flatten(1)  # all bits there are, so infinities and NaN of any payload too
    tensors = {"sparse": sparse.view(dtype), "dense": words.view(dtype), "zeros": torch.zeros(5, 7, dtype=dtype)}
    file = tmp_path / "x.safetensors"
    with file.open("wb") as opened:
        packed = write_tensors(opened, tensors, {})
    assert {"sparse", "zeros"} <= set(packed)
    assert read_shapes(file) == {name: tuple(each.shape) for name, each in tensors.items()}
    assert all(same_bits(each, tensors[name]) for name, each in read_tensors(file))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_signed_zeros_and_what_is_not_finite(dtype, tmp_path):
    tensor = torch.zeros(64, dtype=dtype)
    tensor[3:8] = torch.tensor([-0.0, float("nan"), float("inf"), -float("inf"), torch.finfo(dtype).tiny])
    with (tmp_path / "x.safetensors").open("wb") as file:
        assert write_tensors(file, {"x": tensor}, {}) == ["x"]
    ((_, loaded),) = read_tensors(tmp_path / "x.safetensors")
    assert same_bits(loaded, tensor)
    assert loaded[3].signbit()


def test_any_shape_and_layout(tmp_path):
    table = zero_share(nn.Linear(12, 40)).weight.detach()
    tensors = {
        "scalar": torch.tensor(0.0),
        "one": torch.tensor(7, dtype=torch.int64),
        "none": torch.zeros(0),
        "no rows": torch.zeros(3, 0, 2, dtype=torch.bfloat16),
        "odd": torch.zeros(3, 1, 3),
        "transposed": table.T,
        "strided": table[::2, 1::3],
        "flags": torch.zeros(9, dtype=torch.bool),
    }
    file = tmp_path / "x.safetensors"
    with file.open("wb") as opened:
        packed = write_tensors(opened, tensors, {"mine": "yes"})
    assert {"transposed", "strided", "odd", "flags"} <= set(packed)
    assert not {"one", "none", "no rows"} & set(packed)
    loaded = dict(read_tensors(file))
    assert loaded.keys() == tensors.keys()
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())
    with safe_open(file, framework="pt") as opened:  # a valid file to any reader
        assert opened.metadata()["mine"] == "yes"
        assert opened.get_tensor("odd/bitmask").tolist() == [0, 0]
        assert opened.get_tensor("one") == 7
        assert opened.get_tensor("strided/values").tolist() == [x for x in table[::2, 1::3].flatten().tolist() if x]
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["one"]["data_offsets"][0] % 8 == 0
    assert header["strided/values"]["data_offsets"][0] % 4 == 0


@pytest.mark.parametrize(("share", "most"), [(0.5, 0.57), (0.9, 0.17), (0.0, 1.0)])
def test_size_against_dense_bfloat16(share, most, tmp_path):
    config = BertConfig(
        **{"vocab_size": 4096, "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 512, "max_position_embeddings": 16},
    )
    model = zero_share(BertModel(config).to(torch.bfloat16), share)
    save_sparse(model, tmp_path)
    dense = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert weights_size(tmp_path) <= most * dense
    assert_same_model(load_sparse(tmp_path), model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back(family, tmp_path):
    model = zero_share(tiny_model(family))
    save_sparse(model, tmp_path)
    loaded = load_sparse(str(tmp_path))
    assert type(loaded) is type(model)
    assert not loaded.training
    assert_same_model(loaded, model)
    assert torch.equal(answer(loaded), answer(model))
    assert loaded.config.model_type == model.config.model_type
    if model.can_generate():
        assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id


@pytest.mark.parametrize("family", ["bert", "llama", "gemma3_text", "t5"])
def test_bfloat16_answers_as_stock_does(family, tmp_path):
    model = zero_share(tiny_model(family).to(torch.bfloat16))
    model.save_pretrained(tmp_path / "dense")
    save_sparse(model, tmp_path / "sparse")
    stock = auto_class(HEADS[family][0]).from_pretrained(tmp_path / "dense", dtype=torch.bfloat16)
    loaded = load_sparse(tmp_path / "sparse")
    assert loaded.dtype == loaded.config.dtype == torch.bfloat16
    assert torch.equal(answer(loaded), answer(stock))


def test_ties_are_stored_once_and_tied_again(tmp_path):
    model = zero_share(tiny_model("bert"))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    save_sparse(model, tmp_path / "tied")
    loaded = load_sparse(tmp_path / "tied")
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
    assert loaded.cls.predictions.decoder.bias is loaded.cls.predictions.bias
    assert (
        sum(
            "word_embeddings" in name or "decoder.weight" in name
            for name in read_shapes(tmp_path / "tied" / SPARSE_FILE)
        )
        == 1
    )
    # and what the config calls tied comes back apart where it is
    model.cls.predictions.decoder.weight = nn.Parameter(torch.randn(60, 32))
    save_sparse(model, tmp_path / "apart")
    assert_same_model(load_sparse(tmp_path / "apart"), model)


def test_a_loaded_model_trains_and_saves_as_any_other(tmp_path):
    model = zero_share(tiny_model("gpt2"))
    save_sparse(model, tmp_path / "sparse")
    loaded = load_sparse(tmp_path / "sparse")
    inputs = tiny_inputs(loaded)
    loaded(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    save_sparse(loaded, tmp_path / "sparse")  # over the file that it was loaded from
    assert_same_model(load_sparse(tmp_path / "sparse"), model)
    loaded.save_pretrained(tmp_path / "dense")
    assert_same_model(AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32), model)


def test_stock_transformers_says_that_there_is_no_model(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_shrink"):
        save_sparse(zero_share(tiny_model("bert")), tmp_path)
    (record,) = [record for record in caplog.records if record.name.startswith("hf_shrink")]
    assert record.levelno == logging.INFO
    assert "Stock from_pretrained does not load this folder" in record.getMessage()
    assert "save_pretrained()" in record.getMessage()
    with pytest.raises(OSError, match="no file named"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)


def test_a_write_that_fails_leaves_the_last_one(monkeypatch, tmp_path):
    model = zero_share(tiny_model("bert"))
    save_sparse(model, tmp_path)
    files = sorted(tmp_path.iterdir())

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(sparse_files, "_save_config", fail)
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(OSError, match="No space"):
            save_sparse(zero_share(tiny_model("bert", seed=1)), folder)
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new").rmdir()
    assert sorted(tmp_path.iterdir()) == files
    assert_same_model(load_sparse(tmp_path), model)


def test_what_cannot_be_saved(tmp_path):
    adapted = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ShrinkError, match="merge_and_unload"):
        save_sparse(adapted, tmp_path)
    with pytest.raises(ShrinkError, match=r"lora_A.*Merge adapters first"):
        save_sparse(adapted.base_model.model, tmp_path)
    with pytest.raises(ShrinkError, match="class that transformers has"):
        save_sparse(nn.Linear(2, 2), tmp_path)
    with pytest.raises(ShrinkError, match="meta device"):
        save_sparse(tiny_model("bert").to("meta"), tmp_path)
    quantized = tiny_model("bert")
    quantized.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ShrinkError, match="quantized BertForMaskedLM"):
        save_sparse(quantized, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_saved(tmp_path):
    model = tiny_model("bert")
    (tmp_path / "file").write_text("")
    with pytest.raises(ShrinkError, match=r"`path` must be a folder, but .*file is a file"):
        save_sparse(model, tmp_path / "file")
    model.save_pretrained(tmp_path / "dense")
    with pytest.raises(ShrinkError, match=r"no other weights.*model\.safetensors"):
        save_sparse(model, tmp_path / "dense")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "dense" / "model.safetensors").rename(tmp_path / "foreign" / SPARSE_FILE)
    with pytest.raises(ShrinkError, match=r"save_sparse\(\) did not write"):
        save_sparse(model, tmp_path / "foreign")


def test_where_nothing_is_loaded(tmp_path):
    with pytest.raises(ShrinkError, match="`path` must be a folder"):
        load_sparse(tmp_path / "none")
    with pytest.raises(ShrinkError, match=rf"must hold {SPARSE_FILE}.*Write it with save_sparse"):
        load_sparse(tmp_path)
    model = tiny_model("bert")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    with pytest.raises(ShrinkError, match=r"It holds model-00001-of-.*from_pretrained\(\)"):
        load_sparse(tmp_path / "sharded")
    model.save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "model.safetensors").rename(tmp_path / "dense" / SPARSE_FILE)
    with pytest.raises(ShrinkError, match=r"save_sparse\(\) did not write"):
        load_sparse(tmp_path / "dense")


@pytest.fixture
def saved(tmp_path):
    save_sparse(zero_share(tiny_model("bert")), tmp_path)
    return tmp_path


def test_a_broken_file(saved):
    whole = (saved / SPARSE_FILE).read_bytes()
    (saved / SPARSE_FILE).write_bytes(whole[:-100])
    with pytest.raises(ShrinkError, match="got a broken one"):
        load_sparse(saved)


def test_a_file_from_the_future(saved):
    whole = (saved / SPARSE_FILE).read_bytes()
    (saved / SPARSE_FILE).write_bytes(whole.replace(b'"hf_shrink_sparse": "1"', b'"hf_shrink_sparse": "2"'))
    with pytest.raises(ShrinkError, match=r"of format 2.*Update hf_shrink"):
        load_sparse(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["NoSuchModel"]}, "names NoSuchModel"),
        ({"architectures": None}, "names none"),
        ({"architectures": ["BertModel"]}, "tensors of a BertModel built from its config"),
        ({"intermediate_size": 48}, r"differ: .*\(40,\) for \(48,\)"),
        ({"model_type": "no-such-type"}, "must hold the model's config.json"),
    ],
)
def test_a_config_that_does_not_fit(saved, changes, message):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ShrinkError, match=message):
        load_sparse(saved)


def memory(entry):
    """Bytes of this process: VmRSS is what it holds, VmHWM the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))


def peak_above(function, *arguments):
    """What a function returns, and how far memory rises meanwhile."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = function(*arguments)
    return result, memory("VmHWM") - before


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the peak since a reset")
def test_saving_and_loading_need_memory_for_one_tensor(tmp_path):
    sizes = {"vocab_size": 4096, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
    with torch.device("meta"):
        model = BertModel(BertConfig(**sizes, intermediate_size=2048))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1).view(-1)[::2] = 0
    sizes = [parameter.nbytes for parameter in model.parameters()]
    one = max(sizes) + 16 * 2**20  # and some for buffers of this process
    assert sum(sizes) > 5 * one
    _, saving = peak_above(save_sparse, model, tmp_path)
    _, loading = peak_above(load_sparse, tmp_path)
    assert saving < one
    assert loading < sum(sizes) + one
