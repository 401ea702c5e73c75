"""Int8 with fixed ranges: what is rounded and what is not, outliers, padding, and every processor."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AlbertConfig, AlbertForSequenceClassification

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import QUANTIZERS, quantize
from hf_shrink.quantization.backends.onnx_int8 import onnx_int8
from hf_shrink.quantization.backends.onnx_int8_static import onnx_int8_static
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import module_of
from tests.models import WORDS, randomize, tiny_bert_classifier, tiny_tokenizer
from tests.quantization.outliers import with_outliers
from tests.quantization.texts import TEXTS, inputs, logits

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TASK = "single_label_classification"
LAYER = "bert.encoder.layer.0"
SENTENCES = [" ".join(np.random.default_rng(i).choice(WORDS, 4 + i % 9)) for i in range(64)]


class Making:
    """Artifacts of models; those of one model share its float graph."""

    def __init__(self, work):
        self.work, self.made = work, 0

    def __call__(self, model, method=onnx_int8_static, *, texts=SENTENCES, batch=8, ignore=(), step=print, **options):
        place = self.work / str(id(model))
        self.made += 1
        folder = place / str(self.made)
        folder.mkdir(parents=True)
        batches = tuple(inputs(texts[i : i + batch]) for i in range(0, len(texts), batch))
        self.record = method(Job(model, TASK, folder, step, ignore, batches), **options).record
        return folder / "model.onnx"


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return Making(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def small():
    return to_float(tiny_bert_classifier(num_hidden_layers=2, hidden_size=64, intermediate_size=128))


def answer(path, batch=None):
    session = onnxruntime.InferenceSession(path)
    batch = inputs(SENTENCES) if batch is None else batch
    batch = {"token_type_ids": torch.zeros_like(batch["input_ids"]), **batch}
    return torch.from_numpy(session.run(None, {n.name: batch[n.name].numpy() for n in session.get_inputs()})[0])


def error(path, model):
    expected = logits(model, **inputs(SENTENCES))
    return ((answer(path) - expected).norm() / expected.norm()).item()


def constants(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_matrices_and_embeddings_are_packed_and_nothing_else_is(make, small):
    path = make(small)
    nodes = onnx.load(path).graph.node
    linear = {name for name, module in small.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {module_of(n.name) for n in nodes if n.op_type == "MatMulIntegerToFloat"} == linear
    rounded = [n for n in nodes if n.op_type == "QuantizeLinear"]
    assert len(rounded) == 4 * 2 + 2  # what query, key and value are given is rounded once
    takers = {name for n in nodes if n.op_type == "MatMulIntegerToFloat" for name in n.input}
    assert {n.output[0] for n in rounded} <= takers
    assert not [n for n in nodes if n.op_type == "DequantizeLinear"]
    floats = {n.op_type for n in nodes}
    assert {"Softmax", "Gelu", "LayerNormalization", "MatMul"} <= floats  # attention's products are in float
    large = [a for a in constants(path).values() if a.dtype == np.float32 and a.ndim == 2 and a.shape[1] > 1]
    assert not large


def test_the_runtime_multiplies_integers_in_heads_too(make, small, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3  # it warns that the file is for this processor
    onnxruntime.InferenceSession(make(small), options)
    run = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert run.count("MatMulIntegerToFloat") == 2 * 6 + 2
    assert not {"Gemm", "FusedGemm", "DequantizeLinear"} & set(run)


def test_no_processor_can_overflow(make, small):
    weights = [array for name, array in constants(make(small)).items() if name.endswith("MatMul_int8")]
    assert weights
    for weight in weights:
        # Without VNNI two products of a uint8 activation and a weight are added in 16 bits.
        assert 2 * 255 * np.abs(weight.astype(int)).max() <= 2**15 - 1
        assert np.ptp(weight.astype(int), axis=0).min() > 60  # a scale a column, or narrow ones would use few steps


@pytest.mark.parametrize("module", ["classifier", f"{LAYER}.output.dense", f"{LAYER}.attention.self.key"])
def test_what_is_ignored_stays_in_float(make, small, module):
    weight = small.get_submodule(module).weight.detach().numpy()

    def held(path):
        arrays = constants(path).values()
        return any(np.array_equal(a, weight) or np.array_equal(a, weight.T) for a in arrays if a.dtype == np.float32)

    assert not held(make(small))
    path = make(small, ignore=(module,))
    assert held(path)
    assert module not in {module_of(n.name) for n in onnx.load(path).graph.node if n.op_type == "MatMulIntegerToFloat"}
    everything = tuple(name for name, _ in small.named_modules())
    assert error(make(small, ignore=everything), small) < 1e-5


def with_large_unit(size, weight, **config):
    """A hidden unit that is far larger than the others in each row, as trained encoders have some."""
    model = to_float(tiny_bert_classifier(num_hidden_layers=1, hidden_size=64, intermediate_size=128, **config))
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.bias[5] = size
        layer.output.dense.weight[:, 5] *= weight
    return model


def test_it_is_closer_than_dynamic_ranges_where_activations_have_outliers(make):
    model = with_large_unit(400.0, 0.02)
    static, plain, dynamic = (
        error(make(model, method, **options), model)
        for method, options in ((onnx_int8_static, {}), (onnx_int8_static, {"smoothing": 0.0}), (onnx_int8, {}))
    )
    assert static < 0.4 * dynamic
    assert static < 0.4 * plain


def test_ranges_are_compared_on_a_model_with_outliers(make):
    """Next to nothing comes out of the outliers, which only "mse" knows; they are more than 0.01 % of the values."""
    model = with_large_unit(2000.0, 1e-7)
    mse, minmax, percentile = (
        error(make(model, ranges=ranges, smoothing=0.0), model) for ranges in ("mse", "minmax", "percentile")
    )
    assert mse < 0.3 * minmax
    assert mse < 0.3 * percentile
    assert error(make(model), model) < 0.3 * minmax


def test_one_module_with_outliers_in_its_weights_is_left_in_float(make):
    name = "bert.encoder.layer.1.intermediate.dense"
    model = to_float(with_outliers(tiny_bert_classifier(num_hidden_layers=2), name))
    assert error(make(model, ignore=(name,), smoothing=0.0), model) < 0.2 * error(make(model, smoothing=0.0), model)


def test_padding_does_not_widen_ranges(make):
    model = to_float(tiny_bert_classifier(num_hidden_layers=2))
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0] = 60.0  # the padding's row
        model.bert.embeddings.word_embeddings.weight[0, ::2] = -60.0

    def grids(path):
        return {name: array for name, array in constants(path).items() if name.endswith("_scale") and array.ndim == 0}

    together, alone = (grids(make(model, texts=TEXTS, batch=size)) for size in (len(TEXTS), 1))
    assert together.keys() == alone.keys()
    assert len(together) == 4 * 2 + 2
    for name, scale in together.items():
        assert scale == pytest.approx(alone[name], rel=1e-3), name


def test_answers_do_not_depend_on_the_rows_beside_them(make, small):
    path = make(small)
    together = answer(path, inputs(TEXTS))
    for i, text in enumerate(TEXTS):
        assert (answer(path, inputs([text]))[0] - together[i]).abs().max() < 1e-4


def test_a_long_tail_is_calibrated(make):
    """ONNX Runtime's own calibrators die here of "Too many bins", or of a histogram that does not fit into memory."""
    model = with_large_unit(1e9, 0.0)
    assert error(make(model), model) < 0.1


def test_the_same_rows_give_the_same_bytes_and_others_do_not(make, small):
    first, again = make(small).read_bytes(), make(small).read_bytes()
    assert first == again
    assert make(small, texts=TEXTS).read_bytes() != first


def test_layers_that_share_their_weights_share_them_here(make):
    config = AlbertConfig(
        vocab_size=25, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = to_float(randomize(AlbertForSequenceClassification(config)))
    path = make(model)
    assert 0 < error(path, model) < 0.1
    shapes = [array.shape for name, array in constants(path).items() if name.endswith(("MatMul_int8", "Gemm_int8"))]
    assert len(shapes) == 1 + 6 + 2  # of the embeddings, a layer, and the pooler with the head
    assert sum(np.prod(shape) for shape in shapes) <= sum(p.numel() for p in model.parameters())


def test_options_are_checked_before_any_work(tmp_path):
    job = Job(None, TASK, tmp_path, lambda stage: pytest.fail(f"{stage} began"))
    for options, message in (
        ({"ranges": "entropy"}, r"`ranges` must be one of \['mse', 'minmax', 'percentile'\], got 'entropy'"),
        ({"smoothing": 1.5}, r"`smoothing` must be in \[0, 1\], got 1.5"),
        ({"smoothing": float("nan")}, r"`smoothing` must be in \[0, 1\], got nan"),
    ):
        with pytest.raises(ShrinkError, match=message):
            onnx_int8_static(job, **options)


def test_options_and_stages_are_told(make, small):
    steps = []
    make(small, step=steps.append, ranges="minmax", smoothing=0.5)
    assert len(steps) == QUANTIZERS["onnx-int8-static"].facts["stages"]
    assert make.record["options"] == {"ranges": "minmax", "smoothing": 0.5}


@pytest.mark.slow
def test_rows_are_found_and_the_artifact_is_proved(tmp_path):
    rows = Dataset.from_dict({"text": SENTENCES})
    made = quantize(
        tiny_bert_classifier(),
        "onnx-int8-static",
        output_dir=tmp_path / "out",
        processing_class=tiny_tokenizer(),
        calibration_dataset=rows,
        calibration_size=32,
    )
    assert made.record["calibration"]["rows"] == 32
    assert made.record["proof"]["inputs"] == "calibration rows"
    assert made.record["proof"]["relative_error"] < 0.1
    with pytest.raises(ShrinkError, match="`calibration_dataset` must be given for onnx-int8-static"):
        quantize(tiny_bert_classifier(), "onnx-int8-static", output_dir=tmp_path / "none")
