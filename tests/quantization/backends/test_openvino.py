import functools
import logging
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import QUANTIZERS, nncf_process, quantize
from hf_shrink.quantization.backends import openvino as backend
from hf_shrink.quantization.backends.openvino import openvino_int4, openvino_int8, openvino_int8_static
from hf_shrink.quantization.float_graph import float_graph_of, to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.predicted_size import predict_bytes
from hf_shrink.quantization.proof import prove
from hf_shrink.quantization.traced import sample_rows
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.quantization.texts import TEXTS, inputs, logits, real_proportions

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")

TASK = "single_label_classification"
LAYER = "bert.encoder.layer.0"
METHODS = {
    "openvino-int8": openvino_int8,
    "openvino-int8-static": openvino_int8_static,
    "openvino-int4": openvino_int4,
}
BATCHES = tuple(inputs([text, "my card"]) for text in TEXTS)


@pytest.fixture(scope="module")
def make_job(tmp_path_factory):
    """Jobs of one model, whose folders share its float graph."""
    work, model = tmp_path_factory.mktemp("jobs"), to_float(real_proportions(num_hidden_layers=1))

    def make_job(name, **options):
        (work / name).mkdir()
        rows = () if "openvino-int8" in name.split() else BATCHES
        return Job(model, TASK, work / name, options.pop("step", print), **{"calibration": rows, **options})

    return make_job


@pytest.fixture(scope="module")
def plain(make_job):
    """Jobs done with the defaults, one a method."""

    @functools.cache
    def plain(method):
        job = make_job(f"plain {method}")
        return job, METHODS[method](job)

    return plain


@functools.cache  # nodes lose their readers with the graph
def read(folder):
    return openvino.Core().read_model(folder / "openvino_model.xml")


def constants(folder, kinds=("f32", "f16", "i8", "u8", "i4", "u4")):
    nodes = [node for node in read(folder).get_ops() if node.get_type_name() == "Constant"]
    return [node for node in nodes if node.get_output_element_type(0).get_type_name() in kinds]


def reader(node):
    """The product or lookup that a constant ends in."""
    while node.get_type_name() in ("Constant", "Convert", "Subtract", "Multiply", "Reshape"):
        (taker, *_) = node.output(0).get_target_inputs()
        node = taker.get_node()
    return node.get_friendly_name()


def floats(folder):
    return [np.array(node.get_data()) for node in constants(folder, ("f32",)) if len(node.get_output_shape(0)) == 2]


def answer(folder, **batch):
    compiled = openvino.Core().compile_model(read(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    declared = {port.any_name for port in compiled.inputs}
    batch = {"token_type_ids": torch.zeros_like(batch["input_ids"]), **batch}
    feed = {name: values.numpy() for name, values in batch.items() if name in declared}
    return torch.from_numpy(np.array(compiled(feed)[0]))


@pytest.mark.parametrize("method", METHODS)
def test_all_weights_are_packed_embeddings_among_them(plain, method):
    job, made = plain(method)
    assert made.record["float_share"] < 0.05
    assert not [array.shape for array in floats(job.folder) if min(array.shape) > 1]  # scales are rows or columns
    packed = {reader(node): tuple(node.get_output_shape(0)) for node in constants(job.folder, ("i8", "u8"))}
    assert packed["bert.embeddings.word_embeddings/Gather"] == (30000, 64)
    kinds = {"openvino-int4": {"u4", "u8"}, "openvino-int8": {"u8"}, "openvino-int8-static": {"i8"}}[method]
    assert {n.get_output_element_type(0).get_type_name() for n in constants(job.folder)} - {"f32", "f16"} == kinds


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "module", ["classifier", f"{LAYER}.output.dense", f"{LAYER}.attention.self.key", "bert.embeddings.word_embeddings"]
)
def test_what_is_ignored_stays_in_float(make_job, method, module):
    job = make_job(f"{method} {module}", ignore=(module,))
    METHODS[method](job)
    weight = job.model.get_submodule(module).weight.detach().numpy()
    kept = [array for array in floats(job.folder) if array.shape in (weight.shape, weight.T.shape)]
    # Smoothing moves outliers of the activations into weights, and those in float too.
    assert kept if method == "openvino-int8-static" else any(np.array_equal(array, weight) for array in kept)
    assert sum(array.size for array in floats(job.folder) if min(array.shape) > 1) == weight.size  # and no other


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_makes_the_output_is_known_by_its_module(tmp_path, tied):
    """OpenVINO calls the last node after the output, "logits", and its module would be ignored in vain."""
    model = to_float(tiny_model("llama", "CausalLM", tie_word_embeddings=tied))
    (tmp_path / "kept").mkdir()
    openvino_int8(Job(model, "causal_lm", tmp_path / "kept", print, ignore=("lm_head",)))
    head = model.lm_head.weight.detach().numpy()
    assert [array.shape for array in floats(tmp_path / "kept") if np.array_equal(array, head)] == [head.shape]
    (tmp_path / "packed").mkdir()
    openvino_int8(Job(model, "causal_lm", tmp_path / "packed", print))
    size = (tmp_path / "packed" / "openvino_model.bin").stat().st_size
    assert not [array for array in floats(tmp_path / "packed") if array.shape == head.shape]
    numbers = QUANTIZERS["openvino-int8"].facts["format"]
    shared = head.size + 3 * len(head) if tied else 0  # one constant serves both, where two forms are predicted
    assert predict_bytes(model, numbers) - shared == pytest.approx(size, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "family", "head"),
    [
        ("causal_lm", "llama", "CausalLM"),
        ("masked_lm", "bert", "MaskedLM"),
        ("feature_extraction", "bert", ""),
        ("image_classification", "vit", "ImageClassification"),
        ("question_answering", "bert", "QuestionAnswering"),
        ("token_classification", "bert", "TokenClassification"),
    ],
)
def test_every_task_is_served(task, family, head, tmp_path):
    model = to_float(tiny_model(family, head))
    for method, function in METHODS.items():
        rows = () if method == "openvino-int8" else tuple(sample_rows(model, 4, 12, seed=seed) for seed in range(8))
        (tmp_path / method).mkdir()
        job = Job(model, task, tmp_path / method, print, calibration=rows)
        made = function(job)
        assert made.record["float_share"] < 0.3
        model.config.save_pretrained(job.folder)
        assert prove(job, made, method)["relative_error"] < (0.3 if "int8" in method else 0.5), method


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_close_and_bytes_as_predicted(plain, method):
    job, _ = plain(method)
    expected, found = logits(job.model, **inputs()), answer(job.folder, **inputs())
    off = ((found - expected).norm() / expected.norm()).item()
    # 0 would be a float copy under another name.
    assert 0 < off < {"openvino-int8": 0.06, "openvino-int8-static": 0.06, "openvino-int4": 0.25}[method]
    assert predict_bytes(job.model, QUANTIZERS[method].facts["format"]) == pytest.approx(
        (job.folder / "openvino_model.bin").stat().st_size, rel=0.01
    )


@pytest.mark.parametrize("method", METHODS)
def test_same_rows_same_bytes_and_nothing_of_the_machine(plain, make_job, method):
    jobs = [plain(method)[0], make_job(f"again {method}")]
    METHODS[method](jobs[1])
    for name in ("openvino_model.xml", "openvino_model.bin"):
        first, second = ((job.folder / name).read_bytes() for job in jobs)
        assert first == second, name
        assert str(jobs[0].folder.parent).encode() not in first


def test_static_ranges_are_those_of_the_rows(plain, make_job):
    """Rows of one word give ranges that other rows leave: the answers must know which rows were read."""
    narrow, (wide, _) = make_job("narrow", calibration=(inputs(["help"]),)), plain("openvino-int8-static")
    openvino_int8_static(narrow)
    expected = logits(wide.model, **inputs())
    off = [(answer(job.folder, **inputs()) - expected).norm().item() for job in (narrow, wide)]
    assert off[1] < off[0]
    ranges = [n for n in read(wide.folder).get_ops() if n.get_type_name() == "FakeQuantize"]
    assert len(ranges) >= 5


def test_fewer_bits_of_a_weight_where_sums_may_overflow(plain, make_job):
    jobs = {False: plain("openvino-int8-static")[0], True: make_job("range")}
    openvino_int8_static(jobs[True], reduce_range=True)
    largest = {
        flag: max(
            np.abs(node.get_data().astype(int)).max()
            for node in constants(job.folder, ("i8",))
            if "embeddings" not in reader(node)
        )
        for flag, job in jobs.items()
    }
    # Without VNNI two products of a uint8 activation and a weight are added in 16 bits.
    assert 2 * 255 * largest[True] <= 2**15 - 1 < 2 * 255 * largest[False]


def test_options_of_int8_show(plain, make_job):
    (usual, _), other = plain("openvino-int8"), make_job("other openvino-int8")
    made = openvino_int8(other, symmetric=True, dynamic=False)
    assert made.record["options"] == {"symmetric": True, "dynamic": False}
    assert {n.get_output_element_type(0).get_type_name() for n in constants(other.folder)} == {"i8", "f16", "f32"}
    assert read(other.folder).get_rt_info(nncf_process.DYNAMIC).astype(str) == "0"
    assert not read(usual.folder).has_rt_info(nncf_process.DYNAMIC)


def test_rows_make_4_bits_better(plain, make_job):
    nearest, (corrected, made) = make_job("nearest", calibration=()), plain("openvino-int4")
    assert made.record["options"]["gptq"] is True
    assert openvino_int4(nearest).record["options"]["gptq"] is False
    expected = logits(nearest.model, **inputs())
    off = [(answer(job.folder, **inputs()) - expected).norm().item() for job in (nearest, corrected)]
    assert off[1] < 0.9 * off[0]


def test_weights_are_turned_for_gptq_and_the_answers_stay(make_job, tmp_path):
    """NNCF fails at weights as the exporter lays them out: this fails once it does not, and turning them can go."""
    graph = openvino.Core().read_model(float_graph_of(make_job("turned")))
    before = {n.get_friendly_name() for n in graph.get_ops() if n.get_type_name() == "MatMul"}
    openvino.save_model(graph, tmp_path / "openvino_model.xml", compress_to_fp16=False)
    nncf_process.turn_weights(graph)
    products = [n for n in graph.get_ops() if n.get_type_name() == "MatMul"]
    assert {n.get_friendly_name() for n in products} == before
    weights = [n for n in products if n.input_value(1).get_node().get_type_name() == "Constant"]
    assert len(weights) == 8  # six of the layer, the pooler's and the head's
    assert all(n.get_attributes()["transpose_b"] for n in weights)
    (tmp_path / "turned").mkdir()
    openvino.save_model(graph, tmp_path / "turned" / "openvino_model.xml", compress_to_fp16=False)
    torch.testing.assert_close(answer(tmp_path, **inputs()), answer(tmp_path / "turned", **inputs()))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (openvino_int8, {"symmetric": "no"}, "`symmetric` must be True or False, got 'no'"),
        (openvino_int8_static, {"smooth_alpha": 1.5}, r"`smooth_alpha` must be in \[0, 1\], got 1.5"),
        (openvino_int8_static, {"smooth_alpha": float("nan")}, r"`smooth_alpha` must be in \[0, 1\], got nan"),
        (openvino_int8_static, {"reduce_range": 7}, "`reduce_range` must be True or False, got 7"),
        (openvino_int4, {"group_size": 48}, "`group_size` must be one of .*, got 48"),
        (openvino_int4, {"ratio": 0}, r"`ratio` must be in \(0, 1\], got 0"),
        (openvino_int4, {"gptq": None}, "`gptq` must be True or False, got None"),
    ],
)
def test_options_are_checked_before_any_work(method, options, message, tmp_path):
    job = Job(None, TASK, tmp_path, lambda stage: pytest.fail(f"{stage} began"))
    with pytest.raises(ShrinkError, match=message):
        method(job, **options)


def test_a_crash_of_the_library_is_an_error(make_job, tmp_path, monkeypatch):
    script = tmp_path / "nncf_process.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGFPE)\n")
    monkeypatch.setattr(backend.nncf_process, "__file__", str(script))
    with pytest.raises(ShrinkError, match="quantize by openvino-int8, but its process was killed by SIGFPE"):
        openvino_int8(make_job("crash openvino-int8"))


def test_weights_that_stay_in_float_are_told(make_job, monkeypatch):
    monkeypatch.setattr(backend, "MOSTLY_FLOAT", 0.0)
    steps = []
    with pytest.warns(UserWarning, match="% of the weights of BertForSequenceClassification stay in float"):
        openvino_int8(make_job("told openvino-int8", step=steps.append))
    assert len(steps) == QUANTIZERS["openvino-int8"].facts["stages"]


def test_the_process_stays_as_it_was_and_one_bar_is_all_that_is_printed(tmp_path, capfd):
    before = logging.getLoggerClass(), list(logging.root.handlers), "nncf" in sys.modules
    made = quantize(
        tiny_bert_classifier(num_hidden_layers=1),
        "openvino-int8-static",
        output_dir=tmp_path / "out",
        processing_class=tiny_tokenizer(),
        calibration_dataset=Dataset.from_dict({"text": TEXTS}),
        calibration_size=4,
    )
    assert (logging.getLoggerClass(), list(logging.root.handlers), "nncf" in sys.modules) == before
    out, err = capfd.readouterr()
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip() and "Tokenizing" not in line]
    assert out == ""
    assert all(line.startswith(("openvino-int8-static: ", " |")) for line in lines), err
    assert lines[-1].startswith("openvino-int8-static: done")
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json"} <= {
        path.name for path in made.path.iterdir()
    }
    assert made.record["proof"]["agreement"] >= 0.9
    assert made.record["calibration"]["rows"] == 4
