"""How much worse than the float model: by decisions, divergence or a metric, and the float model asked once."""

import pytest
import torch
from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions
from hf_shrink.quantization.measured_drop import measure_drop
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.quantization.texts import TEXTS, logits

OPTIONS = RowOptions(processing_class=tiny_tokenizer(), batch_size=2)
CLASSES = "single_label_classification"
MODEL = tiny_bert_classifier(num_hidden_layers=1)
OTHER = tiny_bert_classifier(num_hidden_layers=1, seed=8)


def rows(model=MODEL):
    """Labelled with what the model answers, but for the last row."""
    labels = logits(model).argmax(-1).tolist()
    return Dataset.from_dict({"text": TEXTS, "label": [*labels[:-1], (labels[-1] + 1) % 3]})


def measured(metric, dataset=None, model=MODEL, task=CLASSES):
    return measure_drop(model, model, rows() if dataset is None else dataset, metric, task, OPTIONS)


def test_agreement_and_divergence_need_no_labels():
    unlabelled = rows().remove_columns("label")
    same = (logits(MODEL).argmax(-1) == logits(OTHER).argmax(-1)).float().mean().item()
    assert 0 < same < 1
    measure = measured("agreement", unlabelled)
    assert measure.drop(OTHER) == pytest.approx(1 - same)
    assert (measure.metric, measure.rows, measure.is_share) == ("agreement", 4, True)
    first, other = logits(MODEL).log_softmax(-1), logits(OTHER).log_softmax(-1)
    expected = (first.exp() * (first - other)).sum(-1).mean().item()
    assert measured("kl", unlabelled).drop(OTHER) == pytest.approx(expected, rel=1e-4)
    for metric in ("agreement", "kl"):
        assert measured(metric, unlabelled).drop(MODEL) == pytest.approx(0, abs=1e-6)


def test_a_metric_counts_in_its_own_unit_and_up_is_worse():
    measure = measured("accuracy")
    right = (logits(OTHER).argmax(-1) == torch.tensor(rows()["label"][:])).float().mean().item()
    assert measure.drop(OTHER) == pytest.approx(0.75 - right)
    assert measure.is_share
    assert measure.drop(MODEL) == 0
    assert measured(lambda predictions, references: float((predictions != references).mean())).drop(OTHER) < 0


def test_of_an_error_more_is_worse():
    model, sure = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        sure.lm_head.weight.mul_(50)  # as often wrong, and sure of it
    text = Dataset.from_dict({"text": TEXTS})
    measure = measured("perplexity", text, model, "causal_lm")
    assert measure.drop(sure) > 1
    assert measured("perplexity", text, sure, "causal_lm").drop(model) == pytest.approx(-measure.drop(sure))
    assert not measure.is_share


def test_the_float_model_answers_once(monkeypatch):
    asked = []
    model = tiny_bert_classifier(num_hidden_layers=1)
    model.register_forward_hook(lambda *_: asked.append(1))
    for metric in ("agreement", "accuracy"):
        measure = measured(metric, model=model)
        asked.clear()
        assert measure.drop(OTHER) == measure.drop(OTHER)
        assert not asked


def test_language_models_agree_token_by_token():
    model = tiny_model("llama")
    measure = measured("agreement", Dataset.from_dict({"text": TEXTS}), model, "causal_lm")
    assert measure.drop(model) == 0
    other = tiny_model("llama")
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    assert measure.drop(other) > 0.9


def test_what_cannot_be_measured_is_refused():
    for metric, task, message in (
        ("agreement", "regression", "`metric` must be another than 'agreement' for regression"),
        ("acuracy", CLASSES, r"`metric` must be one of .* got 'acuracy'. Did you mean 'accuracy'"),
        ("mse", CLASSES, "`metric` must fit the task 'single_label_classification', got 'mse'"),
    ):
        with pytest.raises(ShrinkError, match=message):
            measured(metric, task=task)
    with pytest.raises(ShrinkError, match="`label_column` must be given"):
        measured("accuracy", rows().remove_columns("label"))
    with pytest.raises(ShrinkError, match="at least 1 row"):
        measured("agreement", rows().select([]))
