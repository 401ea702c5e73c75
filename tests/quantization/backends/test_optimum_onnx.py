import filecmp
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
)

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model
from hf_shrink.quantization import quantize
from hf_shrink.quantization.backends import QUANTIZERS, optimum_onnx
from hf_shrink.quantization.backends.optimum_onnx import optimum_int8, optimum_int8_static
from hf_shrink.quantization.divergence import answers_of
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import module_of
from hf_shrink.quantization.optimum_graph import EXPORTED, optimum_graph_of
from hf_shrink.quantization.traced import sample_rows
from tests.models import randomize, tiny_bert_classifier, tiny_tokenizer
from tests.quantization.test_optimum_graph import tiny_albert
from tests.quantization.texts import TEXTS, inputs

stock = pytest.importorskip("optimum.onnxruntime")
onnx = pytest.importorskip("onnx")
TASK = "single_label_classification"
BOTH = [optimum_int8, optimum_int8_static]
LAYER = "bert.encoder.layer.0"


def calibration(model, *shapes):
    return tuple(sample_rows(model, *shape, seed=7) for shape in shapes or ((4, 12), (4, 24)))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Artifacts of one small model, whose folders share its float graph."""
    work, small = tmp_path_factory.mktemp("jobs"), to_float(tiny_bert_classifier(num_hidden_layers=2))
    made = []

    def make(function, model=small, task=TASK, *, ignore=(), rows=None, **options):
        place = work if model is small else tmp_path_factory.mktemp("other")
        folder = place / f"artifact-{len(made)}"
        folder.mkdir()
        made.append(folder)
        job = Job(model, task, folder, print, ignore, rows or calibration(model))
        function(job, **options)
        model.config.save_pretrained(folder)
        return job

    return make


def error(job, rows=None):
    """Relative error of the answers to other rows."""
    rows = sample_rows(job.model, 8, 20, seed=11) if rows is None else rows
    expected, found = answers_of(job.model, rows, job.task), answers_of(load_model(job.folder), rows, job.task)
    difference = sum(float((e - f).square().sum()) for e, f in zip(expected, found, strict=True))
    return (difference / sum(float(e.square().sum()) for e in expected)) ** 0.5


def arrays(job):
    return [onnx.numpy_helper.to_array(t) for t in onnx.load(job.folder / "model.onnx").graph.initializer]


def holds(job, weight):
    floats = [a for a in arrays(job) if a.dtype == np.float32 and a.size == weight.size and a.ndim == 2]
    return any(np.array_equal(a, w) for a in floats for w in (weight, weight.T))


@pytest.mark.parametrize("function", BOTH)
def test_every_weight_is_packed_and_nothing_else(make, function):
    job = make(function)
    graph = onnx.load(job.folder / "model.onnx").graph
    linear = [m.weight.numel() for m in job.model.modules() if type(m).__name__ == "Linear"]
    tables = [m.weight.numel() for m in job.model.modules() if type(m).__name__ == "Embedding"]
    packed = [a for a in arrays(job) if a.dtype == np.int8 and a.ndim == 2]
    assert sorted(a.size for a in packed) == sorted([*linear, *tables])
    assert not [a for a in arrays(job) if a.dtype == np.float32 and a.size >= min(linear)]
    products = [a for a in packed if a.size in linear]
    assert all(
        np.abs(a.astype(int)).max() <= 64 for a in products if a.size not in tables
    )  # or VNNI-less CPUs overflow
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") == (len(linear) if function is optimum_int8 else 0)
    read = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    heads = 2 * job.model.config.num_hidden_layers  # of three products that read the same, it is rounded once
    assert len(read) <= len(linear) - heads


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    "module", ["classifier", f"{LAYER}.output.dense", f"{LAYER}.attention.self.key", "bert.embeddings.word_embeddings"]
)
def test_what_is_ignored_stays_in_float(make, function, module):
    kept, plain = make(function, ignore=(module,)), make(function)
    weight = kept.model.get_submodule(module).weight.detach().numpy()
    assert holds(kept, weight)
    assert not holds(plain, weight)


def test_a_layer_that_is_called_again_stays_in_float_each_time(make):
    model = tiny_albert()
    query = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    job = make(optimum_int8, model, ignore=(query,))
    nodes = onnx.load(job.folder / "model.onnx").graph.node
    assert [node.op_type for node in nodes if module_of(node.name) == query and "Mat" in node.op_type] == [
        "MatMul"
    ] * 3


@pytest.mark.parametrize("function", BOTH)
def test_where_all_is_ignored_nothing_is_quantized(make, function):
    every = make(optimum_int8).model
    names = tuple(n for n, m in every.named_modules() if type(m).__name__ in ("Linear", "Embedding"))
    job = make(function, ignore=names)
    assert {a.dtype for a in arrays(job)}.isdisjoint({np.dtype("int8"), np.dtype("uint8")})
    assert error(job) < 1e-5


def test_static_beats_the_tools_own_choice(make, tmp_path):
    job = make(optimum_int8_static)
    folder = optimum_graph_of(job).parent
    rows = Dataset.from_list(
        [{n: v[i].tolist() for n, v in b.items()} for b in calibration(job.model) for i in (0, 1)]
    )
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    quantizer = stock.ORTQuantizer.from_pretrained(folder)
    config = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    ranges = quantizer.fit(rows, AutoCalibrationConfig.minmax(rows), tmp_path / "augmented.onnx")
    quantizer.quantize(config, tmp_path / "own", calibration_tensors_range=ranges, file_suffix="")
    own = Job(job.model, TASK, tmp_path / "own", print)
    assert error(job) < 0.5 * error(own)


def test_dynamic_is_as_good_as_the_tools_own_choice_at_8_bits(make, tmp_path):
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    job = make(optimum_int8)
    quantizer = stock.ORTQuantizer.from_pretrained(optimum_graph_of(job).parent)
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(config, tmp_path / "own", file_suffix="")
    assert error(job) < 1.1 * error(Job(job.model, TASK, tmp_path / "own", print))


def test_padding_is_no_part_of_the_ranges(make):
    model = make(optimum_int8_static).model
    padded = inputs(TEXTS)  # rows of other lengths
    lengths = padded["attention_mask"].sum(1).tolist()
    single = tuple({n: v[i : i + 1, :length] for n, v in padded.items()} for i, length in enumerate(lengths))
    assert len(set(lengths)) > 1
    a, b = make(optimum_int8_static, rows=(dict(padded),)), make(optimum_int8_static, rows=single)
    assert a.model is model
    assert filecmp.cmp(a.folder / "model.onnx", b.folder / "model.onnx", shallow=False)


def test_percentiles_are_found_beside_a_mask_and_over_rows_of_other_lengths(make, capfd):
    # ONNX Runtime's histograms hold no mask of -3.4e38 ("Too many bins"), and no arrays of several shapes at once.
    clipped, full = (
        make(optimum_int8_static, calibration=name, rows=calibration(make(optimum_int8).model, (8, 12), (8, 24)))
        for name in ("percentile", "minmax")
    )
    printed = capfd.readouterr().out.split()
    assert set(printed) == {"export", "calibrate", "quantize"}  # the steps of the jobs, and not the histograms' words
    assert error(clipped) < 0.2
    assert not filecmp.cmp(clipped.folder / "model.onnx", full.folder / "model.onnx", shallow=False)


def test_a_calibration_that_does_not_exist_is_refused(make):
    with pytest.raises(ShrinkError, match="`calibration` must be 'minmax' or 'percentile', got 'entropy'"):
        make(optimum_int8_static, calibration="entropy")


def test_values_that_no_histogram_holds_are_named(monkeypatch, make):
    def too_many(*_, **__):
        raise ValueError("Too many bins for data range. Cannot create 2048 finite-sized bins.")

    monkeypatch.setattr(stock.ORTQuantizer, "partial_fit", too_many)
    with pytest.raises(ShrinkError, match="`calibration` must suit .* 'percentile' does not: Too many .* 'minmax'"):
        make(optimum_int8_static)


def test_static_without_rows_is_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`calibration_dataset` must be given for optimum-int8-static"):
        quantize(tiny_bert_classifier(), "optimum-int8-static", output_dir=tmp_path / "out")


@pytest.mark.parametrize("function", BOTH)
def test_the_same_model_and_rows_give_the_same_bytes(make, function):
    first, second = (make(function, to_float(tiny_bert_classifier(num_hidden_layers=1))) for _ in range(2))
    for name in ("model.onnx", "ort_config.json"):
        assert filecmp.cmp(first.folder / name, second.folder / name, shallow=False)
        content = (first.folder / name).read_bytes()
        assert str(first.folder.parent).encode() not in content
        assert str(optimum_onnx.__file__).encode() not in content


HEADS = {
    "token_classification": AutoModelForTokenClassification,
    "question_answering": AutoModelForQuestionAnswering,
    "masked_lm": AutoModelForMaskedLM,
    "feature_extraction": AutoModel,
}
BERT = {
    "vocab_size": 25, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def headed(task):
    torch.manual_seed(0)
    if task == "image_classification":
        config = ViTConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=16,
            patch_size=8, initializer_range=0.3,
        )  # fmt: skip
        return to_float(randomize(AutoModelForImageClassification.from_config(config)))
    return to_float(randomize(HEADS[task].from_config(BertConfig(**BERT))))


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("task", [*HEADS, "image_classification"])
def test_other_heads(make, function, task):
    job = make(function, headed(task), task)
    assert 0 < error(job) < 0.2


def tiny_lm(family):
    torch.manual_seed(0)
    sizes = {"vocab_size": 25, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "initializer_range": 0.3}
    if family == "gpt2":  # whose head is tied, and whose layers are no Linear
        return to_float(
            randomize(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **sizes)))
        )
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        max_position_embeddings=256, **sizes,
    )  # fmt: skip
    return to_float(randomize(LlamaForCausalLM(config)))


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_language_model_is_one_graph_that_generates_as_optimum_does(make, function, family):
    model = tiny_lm(family)
    job = make(function, model, "causal_lm")
    assert [path.name for path in job.folder.glob("*.onnx*")] == ["model.onnx"]
    assert error(job) < 0.3
    heads = [a for a in arrays(job) if a.dtype == np.int8 and sorted(a.shape) == [25, 32]]
    assert len(heads) == 2  # rows that are gathered, and the matrix that gives the logits
    ours, theirs = load_model(job.folder), stock.ORTModelForCausalLM.from_pretrained(job.folder)
    ids = torch.tensor([[2, 5, 7, 9], [0, 0, 2, 11]])
    prompt = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    tokens = ours.generate(**prompt, **settings)
    assert tokens.shape == (2, 16)
    assert torch.equal(tokens, theirs.generate(**prompt, **settings))
    row = {name: values[:1] for name, values in prompt.items()}
    torch.testing.assert_close(ours(**row).logits, theirs(**row).logits, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["optimum-int8", "optimum-int8-static"])
def test_from_end_to_end_nothing_is_printed_but_one_bar(method, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a user's process
    rows = Dataset.from_dict({"text": TEXTS}) if QUANTIZERS[method].facts["calibrated"] else None
    made = quantize(
        tiny_bert_classifier(num_hidden_layers=1),
        method,
        output_dir=tmp_path / "out",
        processing_class=tiny_tokenizer(),
        calibration_dataset=rows,
        calibration_size=len(TEXTS),
    )
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip()]
    assert all(line.startswith((f"{method}: ", " |", "Tokenizing")) for line in lines), err
    assert f"{QUANTIZERS[method].facts['stages'] + 1}/{QUANTIZERS[method].facts['stages'] + 1}" in lines[-1]
    assert logging.getLogger().handlers == []
    names = {path.name for path in made.path.iterdir()}
    assert {"model.onnx", "config.json", "ort_config.json", "quantization.json", "tokenizer.json"} <= names
    loaded = stock.ORTModelForSequenceClassification.from_pretrained(made.path)
    torch.testing.assert_close(loaded(**inputs()).logits, made.load()(**inputs()).logits, atol=1e-4, rtol=0)


def test_optimum_knows_all_tasks_by_their_names():
    from optimum.exporters.tasks import TasksManager

    known = set(TasksManager.get_all_tasks())
    assert {name.removesuffix("-with-past") for name in EXPORTED.values()} <= known
