"""One contract over the whole registry, then the reference values of each metric."""

import math

import numpy as np
import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import METRICS
from hf_shrink.evaluation.metrics.tagging import spans
from hf_shrink.inputs.tasks import TASKS

IDS = np.array([0, 1, 0, 1, 1, 0])
SETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]])
NUMBERS = np.array([0.5, -1.0, 2.0, 3.5])
TAGS = [["B-PER", "I-PER", "O"], ["O", "B-LOC"]]
PERFECT = {
    "single_label_classification": IDS,
    "image_classification": IDS,
    "audio_classification": IDS,
    "multi_label_classification": SETS,
    "regression": NUMBERS,
    "token_classification": TAGS,
    "question_answering": ["the cat", "a dog"],
}


def value(name, predictions, references):
    return METRICS[name].function(predictions, references)


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_states_what_it_is(name):
    method = METRICS[name]
    assert set(method.facts) == {"tasks", "higher_is_better", "percent", "trials"}
    assert set(method.facts["trials"]) <= set(method.facts["tasks"]) <= set(TASKS)
    assert method.paper.startswith(("arXiv:", "https://"))
    assert method.summary


@pytest.mark.parametrize(
    ("name", "task"), [(n, t) for n in METRICS for t in METRICS[n].facts["tasks"] if t in PERFECT]
)
def test_perfect_predictions_get_the_best_value(name, task):
    perfect = value(name, PERFECT[task], PERFECT[task])
    assert isinstance(perfect, float)
    assert perfect == pytest.approx(1.0 if METRICS[name].facts["higher_is_better"] else 0.0)


def test_accuracy_of_ids_sets_and_tags():
    assert value("accuracy", np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])) == 0.75
    assert value("accuracy", np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]])) == 0.5  # the whole set
    assert value("accuracy", [["O", "B-X"], ["O"]], [["O", "O"], ["O"]]) == pytest.approx(2 / 3)


def test_f1_is_of_class_one_where_there_are_two_and_the_mean_where_there_are_more():
    found, wanted = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert value("f1", np.array([1, 1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)  # 2 tp / (2 tp + fp + fn)
    assert value("f1", found, wanted) == 0.5
    three, right = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    assert value("f1", three, right) == value("f1_macro", three, right) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert value("f1_micro", three, right) == 0.75
    assert value("f1_macro", np.array([1, 1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)


def test_balanced_accuracy_and_matthews_see_through_skew():
    wanted = np.array([0] * 9 + [1])
    always = np.zeros(10, dtype=int)
    assert value("accuracy", always, wanted) == 0.9
    assert value("balanced_accuracy", always, wanted) == 0.5
    assert value("matthews_correlation", always, wanted) == 0.0


def test_seqeval_f1_is_that_of_its_readme():
    wanted = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    found = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert value("seqeval_f1", found, wanted) == 0.5
    assert value("accuracy", found, wanted) == pytest.approx(0.8)  # tokens look better than spans
    assert value("seqeval_f1", [["O", "O"]], [["B-PER", "O"]]) == 0.0


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["B-PER", "I-PER", "B-PER"], {("PER", 0, 2), ("PER", 2, 3)}),
        (["I-PER", "I-PER", "O"], {("PER", 0, 2)}),  # IOB1: a span may begin inside
        (["B-PER", "I-LOC"], {("PER", 0, 1), ("LOC", 1, 2)}),
        (["S-PER", "B-LOC", "E-LOC", "I-LOC"], {("PER", 0, 1), ("LOC", 1, 3), ("LOC", 3, 4)}),
        (["B-creative-work", "I-creative-work"], {("creative-work", 0, 2)}),
        ([], set()),
    ],
)
def test_spans_as_conlleval_reads_them(tags, found):
    assert spans(tuple(tags)) == found


def test_tags_without_spans_are_refused():
    with pytest.raises(ShrinkError, match=r"`metric` 'seqeval_f1' must get tags such as .* got 'NOUN'"):
        value("seqeval_f1", [["NOUN"]], [["NOUN"]])


def test_answers_are_compared_as_the_squad_script_does():
    found, wanted = ["The Cat!", "a big dog", ""], [["cat", "dog"], ["big brown dog"], []]
    assert value("exact_match", found, wanted) == pytest.approx(2 / 3)
    assert value("squad_f1", found, wanted) == pytest.approx((1 + 0.8 + 1) / 3)  # 2 * 2 / (2 + 3)
    assert value("exact_match", ["cat"], ["cat"]) == 1.0
    assert value("squad_f1", [""], ["cat"]) == 0.0


def test_perplexity_weights_tokens_not_rows():
    nats, tokens = np.array([2.0, 18.0]), np.array([1, 9])
    assert value("nats_per_token", nats, tokens) == pytest.approx(2.0)
    assert value("perplexity", nats, tokens) == pytest.approx(math.e**2)
    assert math.isnan(value("perplexity", np.array([0.0]), np.array([0])))


def test_correlations_and_errors():
    found, wanted = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 9.0])
    assert value("spearman", found, wanted) == pytest.approx(1.0)
    assert value("pearson", found, wanted) == pytest.approx(np.corrcoef(found, wanted)[0, 1])
    assert value("mse", found, wanted) == pytest.approx(26 / 3)
    assert value("mae", found, wanted) == pytest.approx(2.0)
    assert math.isnan(value("pearson", np.ones(3), wanted))  # a collapsed model has no correlation, and no warning
    columns = np.stack([found, -found], 1), np.stack([wanted, wanted], 1)
    assert value("spearman", *columns) == pytest.approx(0.0)  # the mean of 1 and -1
