"""A latency as a constraint: what is predicted from parts is what a clock that follows the arithmetic would show."""

from types import SimpleNamespace

import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.macs import count_macs
from hf_shrink.pruning import latencies
from hf_shrink.pruning.one_shot import prune
from tests.architectures.models import tiny_model
from tests.pruning.test_search import LENGTH, calibration, one_step

MACS_A_MILLISECOND = 1e4


def milliseconds(model):
    return count_macs(model, sequence_length=LENGTH) / MACS_A_MILLISECOND


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Times that are the same on every machine."""

    def measure(models, *, sequence_length, runs):
        assert sequence_length == LENGTH
        return [SimpleNamespace(p50_ms=milliseconds(model)) for model in models]

    monkeypatch.setattr(latencies, "measure_latencies", measure)


@pytest.mark.parametrize("structure", [None, "neurons", "layers"], ids=str)
@pytest.mark.parametrize("family", ["bert", "mistral"])
def test_as_much_goes_as_the_clock_asks_for(family, structure):
    model = tiny_model(family)
    asked = 0.7 * milliseconds(model)
    options = {"structure": structure, "sequence_length": LENGTH, **calibration(model)}
    smaller = prune(model, constraints={"latency_ms": asked}, **options)
    assert milliseconds(smaller) <= asked * (1 + 1e-6)
    if structure == "neurons":
        assert milliseconds(smaller) > asked - one_step(model).macs / MACS_A_MILLISECOND


def test_what_no_shape_can_do_is_refused_with_the_nearest():
    model = tiny_model("bert")
    with pytest.raises(ShrinkError, match=r"got latency_ms=0\.001, and the least is"):
        prune(model, constraints={"latency_ms": 0.001}, sequence_length=LENGTH, **calibration(model))


def test_free_shapes_are_no_faster_in_stock_transformers():
    with pytest.raises(ShrinkError, match="must not hold latency_ms with uniform=False"):
        prune("no/such/model", constraints={"latency_ms": 5.0}, uniform=False, calibration_dataset="no/such/rows")
