import warnings

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import measure_latencies, measure_latency
from hf_shrink.evaluation.latency import weight_types
from hf_shrink.inputs import OnnxModel
from tests.evaluation.builders import classifier
from tests.models import tiny_tokenizer


@pytest.fixture
def graph(graph_folder):
    return OnnxModel(graph_folder, threads=3)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield 1
    torch.set_num_threads(before)


def test_conditions_are_stated_and_threads_restored(threads):
    model = classifier()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    latency = measure_latency(model, batch_size=2, sequence_length=500, threads=2, runs=5, warmup=1)
    assert (latency.runs, latency.batch_size, latency.sequence_length, latency.threads) == (5, 2, 64, 2)
    assert (latency.dtype, latency.device) == ("float32", "cpu")
    assert 0 < latency.p50_ms <= latency.p95_ms
    assert set(seen) == {2}
    assert torch.get_num_threads() == threads
    assert measure_latency(model.half(), runs=1, warmup=0, threads=1).dtype == "float16"


def test_threads_are_restored_after_a_failure(threads):
    def fail(*_):
        raise RuntimeError("out of memory")

    model = classifier()
    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_latency(model, threads=2, runs=1)
    assert torch.get_num_threads() == threads


def test_models_take_turns_without_dropout_or_gradients(threads):
    order, models = [], [classifier(layers=layers).train() for layers in (1, 2)]
    for i, model in enumerate(models):
        model.register_forward_hook(lambda m, *_, i=i: order.append((i, m.training, torch.is_grad_enabled())))
    rounds = []
    measure_latencies(models, runs=4, warmup=1, on_round=lambda: rounds.append(1))
    assert [i for i, *_ in order[:2]] == [0, 1]  # warm-up
    assert [i for i, *_ in order[2:]] == [0, 0, 1, 1, 1, 1, 0, 0] * 2  # each pass once untimed, once timed
    assert {rest for _, *rest in map(tuple, order) for rest in [tuple(rest)]} == {(False, False)}
    assert len(rounds) == 4
    assert all(model.training for model in models)


def test_all_models_get_the_shortest_ones_length(threads):
    models = [classifier(), classifier(max_position_embeddings=24)]
    assert [latency.sequence_length for latency in measure_latencies(models, runs=1, warmup=0)] == [24, 24]


def test_a_graph_gets_the_same_threads(graph, threads, monkeypatch):
    made, make = [], OnnxModel.__init__
    monkeypatch.setattr(
        OnnxModel, "__init__", lambda self, path, **options: made.append(options) or make(self, path, **options)
    )
    module, exported = measure_latencies([classifier(), graph], sequence_length=16, threads=2, runs=3)
    assert module.threads == exported.threads == 2
    assert exported.dtype == "float32"
    assert exported.sequence_length == 16
    assert made == [{"threads": 2}]
    assert graph.session.get_session_options().intra_op_num_threads == 3  # the caller's session is left alone


def test_int8_matrices_show_in_the_type(graph, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(graph.file, tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text((graph.path / "config.json").read_text())
    assert "int8" in weight_types(OnnxModel(tmp_path)).split("+")
    assert weight_types(graph) == "float32"


@pytest.mark.parametrize(("load", "warned"), [(0.5, False), (3.9, False), (5.1, True)])
def test_a_busy_machine_is_said(monkeypatch, load, warned):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr("hf_shrink.evaluation.latency.usable_cores", lambda: 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure_latency(classifier(), runs=1, warmup=0, threads=1)
    assert ["compete for 4 cores" in str(warning.message) for warning in caught] == [True] * warned


def test_own_inputs_are_used():
    inputs = tiny_tokenizer()(["my card is lost"] * 3, return_tensors="pt")
    latency = measure_latency(classifier(), inputs=inputs, runs=1, warmup=0, threads=1)
    assert (latency.batch_size, latency.sequence_length) == (3, None)


@pytest.mark.parametrize(
    "wrong", [{"runs": 0}, {"threads": 0}, {"batch_size": 0}, {"sequence_length": 0}, {"threads": float("nan")}]
)
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(ShrinkError, match=f"`{next(iter(wrong))}` must be at least 1"):
        measure_latency(classifier(), **wrong)
