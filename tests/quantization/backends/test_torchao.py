"""Folders in int8 through torchao, also on a processor without VNNI, where sums of products overflow."""

import copy
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel, TorchAoConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_parameters, measure, size_on_disk
from hf_shrink.hub.usage import loading_code
from hf_shrink.quantization import QUANTIZERS, packing, quantize
from hf_shrink.quantization.backends.torchao import torchao_int8, torchao_int8_dynamic
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.predicted_size import predict_bytes
from tests.distillation.tasks import TASK_CASES
from tests.models import randomize, tiny_bert_classifier
from tests.quantization.backends.test_bitsandbytes import FAMILIES, IDS, SHAPE, TASK, answers, classifier, pack

pytest.importorskip("torchao")
from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerGroup  # noqa: E402

METHODS = {"torchao-int8": torchao_int8, "torchao-int8-dynamic": torchao_int8_dynamic}


def packed(model):
    return {name.removesuffix(".weight") for name, p in model.named_parameters() if type(p).__name__ == "Int8Tensor"}


def linear(model):
    return {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def stored(folder):
    """Bytes on disk by dtype."""
    sizes = Counter()
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            sizes[tensor.dtype] += tensor.nbytes
    return sizes


PACKABLE = [  # GPT-2 has Conv1D layers, which torchao does not pack
    family for family in FAMILIES if "GPT2" not in type(family[1]).__name__
]


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(("auto", "config", "heads"), PACKABLE, ids=lambda v: getattr(v, "model_type", None))
def test_heads_stay_in_float_and_stock_classes_load_the_rest(auto, config, heads, method, tmp_path):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.pad_token_id = 0
    model = to_float(randomize(auto.from_config(config)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made, folder = pack(method, model, tmp_path)
    loaded = auto.from_pretrained(folder).eval()
    assert packed(loaded) == packed(made.model) == linear(model) - heads
    assert set(made.record["layers_in_float"]) == heads
    feed = {"pixel_values": torch.randn(2, 3, 16, 16)} if "ViT" in type(model).__name__ else {"input_ids": IDS}
    feed = {
        name: values.to(made.model.dtype) if values.is_floating_point() else values for name, values in feed.items()
    }
    with torch.no_grad():
        own, again = (m(**feed)[0].float() for m in (made.model, loaded))
        right = model(**{name: v.float() if v.is_floating_point() else v for name, v in feed.items()})[0]
    assert torch.equal(own, again)
    assert 0 < (own - right).norm() < 0.2 * right.norm()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", list(METHODS))
def test_the_bytes_on_disk_are_those_that_are_predicted(method, tmp_path):
    model = classifier(num_hidden_layers=2, hidden_size=256, intermediate_size=1024)
    made, folder = pack(METHODS[method], model, tmp_path)
    sizes = stored(folder)
    weights = sum(model.get_submodule(name).weight.numel() for name in packed(made.model))
    assert weights <= sizes[torch.int8] <= 1.05 * weights  # zero points are there too
    numbers = QUANTIZERS[method].facts["format"]
    assert predict_bytes(model, numbers) == pytest.approx(sum(sizes.values()), rel=0.02)


def test_four_bits_that_take_a_byte_each_would_be_found(tmp_path):
    """Why there is no torchao-int4: what its 4 bits are stored as on a CPU takes a byte a weight."""
    model = classifier(num_hidden_layers=2, hidden_size=256, intermediate_size=1024)
    settings = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    job = Job(model, TASK, tmp_path / "artifact", lambda stage: None)
    packing.pack(job, TorchAoConfig(settings, modules_to_not_convert=["classifier"]), torch.bfloat16)
    numbers = replace(QUANTIZERS["torchao-int8"].facts["format"], bits=4, group_size=32)
    assert predict_bytes(model, numbers) < 0.7 * size_on_disk(job.folder)
    assert not [
        name for name in QUANTIZERS if name.startswith("torchao") and QUANTIZERS[name].facts["format"].bits < 8
    ]


@pytest.mark.parametrize("method", METHODS.values())
def test_a_named_module_stays_in_float_and_no_other(method, tmp_path):
    model = classifier(num_hidden_layers=11)
    kept = "bert.encoder.layer.1.output.dense"  # another layer's name goes on after the same beginning
    made, folder = pack(method, model, tmp_path, ignore=(kept,), dtype="float16")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert packed(loaded) == linear(model) - {kept, "classifier"}
    assert loaded.get_submodule(kept).weight.dtype == torch.float16
    assert made.record["layers_in_float"] == [kept, "classifier"]
    assert 0 < made.record["float_share"] < 0.5


def test_weights_are_the_nearest_of_255_levels_a_row(tmp_path):
    model = classifier()
    made, _ = pack(torchao_int8, model, tmp_path, dtype="float32")
    name = "bert.encoder.layer.0.output.dense"
    weight, rounded = model.get_submodule(name).weight, made.model.get_submodule(name).weight.dequantize()
    step = weight.detach().abs().amax(1, keepdim=True) / 127.5
    assert ((weight - rounded).abs() <= 1.01 * step / 2 + step * (weight.abs() > 126.9 * step)).all()
    assert made.record["options"] == {"dtype": "float32"}


# ------------------------------------------------------------------ a processor without VNNI
ASK = """
import sys
import torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
ids = torch.load(sys.argv[2])
with torch.no_grad():
    torch.save(model(input_ids=ids).logits.float(), sys.argv[3])
"""


def ask_elsewhere(folder, scratch, instructions):
    torch.save(IDS, scratch / "ids.pt")
    subprocess.run(
        [sys.executable, "-c", ASK, str(folder), str(scratch / "ids.pt"), str(scratch / "logits.pt")],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        check=True,
        capture_output=True,
    )
    return torch.load(scratch / "logits.pt")


@pytest.mark.slow
def test_no_processor_overflows(tmp_path):
    model = classifier(hidden_size=256, intermediate_size=512, num_attention_heads=4)
    with torch.no_grad():  # inputs and weights of one sign and size: products add up
        norm = model.bert.encoder.layer[0].attention.output.LayerNorm
        norm.weight.mul_(0.01)
        norm.bias.fill_(3.0)
        model.bert.encoder.layer[0].intermediate.dense.weight.abs_().clamp_(min=0.1, max=0.12)
    right = answers(model)
    errors = {}
    for reduce_range in (True, False):
        (tmp_path / str(reduce_range)).mkdir()
        _, folder = pack(
            torchao_int8_dynamic, model, tmp_path / str(reduce_range), dtype="float32", reduce_range=reduce_range
        )
        errors[reduce_range] = (ask_elsewhere(folder, tmp_path, "AVX2") - right).norm() / right.norm()
    assert errors[True] < 0.1
    assert errors[False] > 3 * errors[True]  # what the option is for


def test_seven_bits_are_the_default(tmp_path):
    made, _ = pack(torchao_int8_dynamic, classifier(), tmp_path)
    weight = made.model.bert.encoder.layer[0].output.dense.weight
    assert weight.qdata.abs().max() in (63, 64)
    assert weight.act_quant_kwargs.reduce_range
    assert weight.act_quant_kwargs.mapping_type == MappingType.ASYMMETRIC
    assert made.record["options"] == {"dtype": "bfloat16", "reduce_range": True}


# ------------------------------------------------------------------ what is refused, measured and served
def test_what_cannot_be_done_is_refused(tmp_path):
    job = Job(classifier(), TASK, tmp_path / "a", print)
    with pytest.raises(ShrinkError, match=r"`dtype` must be one of \['float16', 'bfloat16', 'float32'\], got 'half'"):
        torchao_int8(job, dtype="half")
    with pytest.raises(ShrinkError, match="`reduce_range` must be True or False, got 1"):
        torchao_int8_dynamic(job, reduce_range=1)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4, n_positions=64))
    with pytest.raises(ShrinkError, match="`model` must have nn.Linear layers beside its heads, but GPT2LMHeadModel"):
        torchao_int8(Job(gpt2, "causal_lm", tmp_path / "a", print))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", METHODS.values())
def test_costs_are_those_of_the_architecture(method, tmp_path):
    model = classifier()
    _, folder = pack(method, model, tmp_path)
    costs = measure(folder, sequence_length=16, runs=2, peak_memory=False)
    assert costs.parameters == count_parameters(model)
    assert costs.macs == measure(model, sequence_length=16, runs=2, peak_memory=False).macs
    assert costs.size_bytes == size_on_disk(folder)


def test_the_same_model_gives_the_same_weights(tmp_path):
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _, folder = pack(torchao_int8_dynamic, classifier(), tmp_path / name)
        with safe_open(folder / "model.safetensors", "pt") as file:
            files.append({name: file.get_tensor(name) for name in file.keys()})
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_quantized_models_are_not_quantized_again(tmp_path):
    _, folder = pack(torchao_int8, classifier(), tmp_path)
    with pytest.raises(ShrinkError, match="`model` must be a float model, .* quantized already"):
        quantize(folder, "torchao-int8", output_dir=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("task", ["seq2seq_lm", "feature_extraction", "image_classification"])
def test_models_of_other_tasks_are_proved_too(task, method, tmp_path):
    made = quantize(TASK_CASES[task].student(), method, output_dir=tmp_path / "out")
    assert made.record["task"] == task
    assert made.record["proof"]["reload_difference"] <= 1e-2
    assert 0 < made.record["proof"]["relative_error"] < 0.3
    assert packed(made.load())


def test_eight_bits_are_closer_than_rounding_all_to_seven(tmp_path):
    model = tiny_bert_classifier(**SHAPE)
    right, errors = answers(model), {}
    for name, method, options in (
        ("weights", torchao_int8, {}),
        ("full", torchao_int8_dynamic, {"reduce_range": False}),
        ("reduced", torchao_int8_dynamic, {}),
    ):
        (tmp_path / name).mkdir()
        made, _ = pack(method, to_float(model), tmp_path / name, dtype="float32", **options)
        errors[name] = (answers(made.model) - right).norm() / right.norm()
    assert errors["weights"] < errors["full"] < errors["reduced"] < 0.1


def test_a_card_names_what_to_install():
    code = loading_code(TASK, "me/model", "torchao-int8")
    assert "import AutoModelForSequenceClassification, AutoTokenizer  # pip install torchao\n" in code
