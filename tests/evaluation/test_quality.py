import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, EvalPrediction, Trainer, TrainingArguments

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import as_compute_metrics
from hf_shrink.evaluation.quality import predict
from hf_shrink.inputs import tokenize_rows
from tests.evaluation.builders import classifier, labelled, logits_of
from tests.evaluation.test_chosen_metric import LocalMetric
from tests.models import tiny_tokenizer

TASK = "single_label_classification"


def test_trainer_takes_it(tmp_path):
    model, rows = classifier(), tokenize_rows(labelled(), tiny_tokenizer(), task=TASK)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, per_device_eval_batch_size=5),
        eval_dataset=rows,
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
        compute_metrics=as_compute_metrics("accuracy", TASK),
    )
    found = predict(model, rows, DataCollatorWithPadding(tiny_tokenizer()), 5)
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(np.mean(found.correct))
    assert found.predictions.tolist() == [logits_of(model, text).argmax().item() for text in labelled()["text"]]


def test_names_modules_and_functions():
    outputs = EvalPrediction(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    assert as_compute_metrics("accuracy", TASK)(outputs) == {"accuracy": 0.5}
    module = LocalMetric()
    assert as_compute_metrics(module, TASK)(outputs) == {module.name: 0.5}
    assert as_compute_metrics(len, TASK) is len  # Trainer's own kind of function
    with_states = EvalPrediction((outputs.predictions, np.zeros(3)), outputs.label_ids)
    assert as_compute_metrics("accuracy", TASK)(with_states) == {"accuracy": 0.5}


def test_tags_and_perplexity():
    logits = np.eye(3)[np.array([[1, 2, 0], [0, 1, 1]])]
    outputs = EvalPrediction(logits, np.array([[1, 2, -100], [0, 1, 2]]))
    names = {0: "O", 1: "B-X", 2: "I-X"}
    assert as_compute_metrics("seqeval_f1", "token_classification", id2label=names)(outputs) == {"seqeval_f1": 0.4}
    assert as_compute_metrics("accuracy", "token_classification")(outputs) == {"accuracy": 0.8}
    uniform = EvalPrediction(np.zeros((2, 4, 7)), np.ones((2, 4), dtype=int))
    assert as_compute_metrics("perplexity", "causal_lm")(uniform)["perplexity"] == pytest.approx(7)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShrinkError, match="`metric` must fit the task"):
        as_compute_metrics("perplexity", TASK)
    with pytest.raises(ShrinkError, match="`id2label` must be given for 'seqeval_f1'"):
        as_compute_metrics("seqeval_f1", "token_classification")
    with pytest.raises(ShrinkError, match="`task` must be one of .* to be scored, got 'feature_extraction'"):
        as_compute_metrics("accuracy", "feature_extraction")


def test_inputs_that_a_model_does_not_know_are_left_out():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=3)
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(config).eval()
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    rows = tokenize_rows(labelled(), tokenizer, task=TASK)
    assert "token_type_ids" in rows.column_names
    assert len(predict(model, rows, DataCollatorWithPadding(tokenizer), 5).predictions) == 24
