import datasets
import evaluate
import numpy as np
import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import METRICS
from hf_shrink.evaluation.chosen_metric import choose_metric

TASK = "single_label_classification"
FOUND, WANTED = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])


class LocalMetric(evaluate.Metric):
    """Share of right answers, with whatever else `extra` holds; nothing is fetched."""

    extra = {}

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {self.name: float(np.mean(np.asarray(predictions) == np.asarray(references))), **self.extra}


def test_registered_metric_brings_its_facts():
    metric = choose_metric("accuracy", TASK)
    assert (metric.name, metric.higher_is_better, metric.percent, metric.trials) == ("accuracy", True, True, True)
    assert metric(FOUND, WANTED) == 0.75
    assert not choose_metric("accuracy", "token_classification").trials  # tokens of a sentence hang together
    assert not choose_metric("perplexity", "causal_lm").higher_is_better


def test_f1_of_many_classes_keeps_its_meaning_where_a_draw_lacks_some():
    metric = choose_metric("f1", TASK, num_labels=3)
    assert metric.name == "f1_macro"
    two = np.array([0, 1, 1]), np.array([0, 0, 1])
    assert metric(*two) == METRICS["f1_macro"].function(*two) == pytest.approx(2 / 3)
    assert choose_metric("f1", TASK, num_labels=2).name == "f1"


def test_function_and_evaluate_module():
    def share_right(predictions, references):
        return np.mean(predictions == references)

    metric = choose_metric(share_right, TASK)
    assert (metric.name, metric.percent, metric.trials) == ("share_right", False, False)
    assert metric(FOUND, WANTED) == 0.75
    assert choose_metric(share_right, TASK, higher_is_better=False).higher_is_better is False
    module = choose_metric(LocalMetric(), TASK)
    assert module(FOUND, WANTED) == 0.75
    assert module(FOUND, WANTED) == 0.75  # and again: the module keeps no rows


def test_module_with_several_numbers_gives_the_one_of_its_name_or_is_refused(monkeypatch):
    monkeypatch.setattr(LocalMetric, "extra", {"other": 3.0})
    module = LocalMetric()
    assert choose_metric(module, TASK)(FOUND, WANTED) == 0.75
    monkeypatch.setattr(LocalMetric, "_compute", lambda self, predictions, references: {"a": 1.0, "b": 2.0})
    with pytest.raises(ShrinkError, match=r"`metric` must give one number, but .* gives \['a', 'b'\]"):
        choose_metric(module, TASK)(FOUND, WANTED)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("acuracy", r"`metric` must be one of .*Did you mean 'accuracy'\?"),
        ("perplexity", r"`metric` must fit the task 'single_label_classification', got 'perplexity'.*'accuracy'"),
        (3, "`metric` must be a name, a function or an evaluate.EvaluationModule, got int"),
    ],
)
def test_unfit_metrics_are_refused(metric, message):
    with pytest.raises(ShrinkError, match=message):
        choose_metric(metric, TASK)


def test_a_function_is_tried_on_the_labels_first():
    def broken(predictions, references):
        raise KeyError("labels")

    with pytest.raises(ShrinkError, match=r"`metric` 'broken' must take .* raised KeyError"):
        choose_metric(broken, TASK).check(WANTED)
    with pytest.raises(ShrinkError, match=r"`metric` '<lambda>' must give a number, got dict"):
        choose_metric(lambda predictions, references: {"a": 1.0}, TASK).check(WANTED)
    choose_metric("accuracy", TASK).check(WANTED)
