"""`score_dataset`: the rows again, with a column for each score."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig, BertForMaskedLM, BertModel, Trainer

from hf_shrink import SCORES, score_dataset
from hf_shrink.dataset_distillation import TrainingDynamicsCallback
from hf_shrink.dataset_distillation.learner import load_learner
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.scored_runs import arguments
from tests.distillation.tasks import TASK_CASES, TEXTS
from tests.models import tiny_bert_classifier, tiny_tokenizer

NAMES = ["lost", "failed", "other"]
LABELS = [0, 2, 2, 1, 2, 1, 0, 2]
SETTINGS = {"num_train_epochs": 3, "batch_size": 4, "learning_rate": 1e-2}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Checkpoints that were not fine-tuned: without a head, and with that of their pretraining."""
    folder = tmp_path_factory.mktemp("bases")
    config = BertConfig(vocab_size=len(tiny_tokenizer()), max_position_embeddings=64, pad_token_id=0, **TINY)
    for kind in (BertModel, BertForMaskedLM):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder / kind.__name__)
        tiny_tokenizer().save_pretrained(folder / kind.__name__)
    return folder


@pytest.fixture
def base(bases):
    return bases / "BertModel"


def rows(**columns):
    return Dataset.from_dict({"text": TEXTS, **columns})


def named():
    return rows(label=LABELS, note=list("abcdefgh")).cast_column("label", ClassLabel(names=NAMES))


def test_all_columns_stay_and_each_score_is_one_more(base):
    given = named()
    scored = score_dataset(given, ["aum", "forgetting"], base, **SETTINGS)
    assert scored.column_names == ["text", "label", "note", "score_aum", "score_forgetting"]
    assert scored.remove_columns(["score_aum", "score_forgetting"])[:] == given[:]
    assert scored.features["label"] == given.features["label"]
    assert scored.features["score_aum"] == Value("float32")
    assert np.isfinite(scored["score_aum"]).all()
    assert given.column_names == ["text", "label", "note"]


def test_scores_are_those_of_the_same_run_by_hand(tmp_path, base):
    given = named()
    scored = score_dataset(given, ["aum", "el2n"], base, seed=5, **SETTINGS)
    callback = TrainingDynamicsCallback(["aum", "el2n"])
    torch.manual_seed(5)
    model = load_learner(base, given, task=None, text_column=None, label_column=None)
    encoded = tiny_tokenizer()(TEXTS)
    args = arguments(tmp_path, per_device_train_batch_size=4, learning_rate=1e-2, seed=5)
    train_dataset = callback.number(Dataset.from_dict({**encoded, "labels": LABELS}))
    trainer = Trainer(
        model, args, train_dataset=train_dataset, processing_class=tiny_tokenizer(), callbacks=[callback]
    )
    trainer.train()
    for name, values in callback.scores().items():
        np.testing.assert_allclose(scored[f"score_{name}"], values, rtol=1e-5)


def test_the_same_seed_gives_the_same_scores_and_another_others(base):
    first, again, other = (score_dataset(named(), ["aum"], base, seed=seed, **SETTINGS) for seed in (0, 0, 1))
    assert first["score_aum"] == again["score_aum"] != other["score_aum"]


def test_an_instance_is_not_trained_itself():
    model = tiny_bert_classifier().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score_dataset(rows(label=LABELS), ["aum"], model, processing_class=tiny_tokenizer(), **SETTINGS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
@pytest.mark.parametrize(
    ("labels", "feature", "task", "count"),
    [
        (LABELS, ClassLabel(names=NAMES), "single_label_classification", 3),
        (LABELS, Value("int64"), "single_label_classification", 3),
        ([NAMES[i] for i in LABELS], Value("string"), "single_label_classification", 3),
        ([[0], [1, 2], [], [2], [0, 1], [2], [1], []], List(ClassLabel(names=NAMES)), "multi_label", 3),
        ([[1.0, 0.0]] * 8, List(Value("float32")), "multi_label", 2),
    ],
)
def test_a_checkpoint_that_was_not_fine_tuned_gets_a_head_for_the_labels(bases, kind, labels, feature, task, count):
    given = rows(label=labels).cast_column("label", feature)
    learner = load_learner(bases / kind, given, task=None, text_column=None, label_column=None)
    assert type(learner).__name__ == "BertForSequenceClassification"
    assert learner.config.num_labels == count
    assert (learner.config.problem_type == "multi_label_classification") == (task == "multi_label")
    if feature != Value("int64") and count == 3:
        assert sorted(learner.config.label2id) == sorted(NAMES)
    scored = score_dataset(given, ["el2n", "correctness"], bases / kind, **{**SETTINGS, "num_train_epochs": 1})
    assert np.isfinite(scored["score_el2n"]).all()
    assert scored["label"] == given["label"]


def test_tags_of_words_are_scored_by_the_mean_over_them(base):
    words = [text.split() for text in TEXTS]
    tags = [[i % 2 for i in range(len(row))] for row in words]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B"]))})
    given = Dataset.from_dict({"tokens": words, "ner_tags": tags}, features=features)
    learner = load_learner(base, given, task=None, text_column=None, label_column=None)
    assert type(learner).__name__ == "BertForTokenClassification"
    scored = score_dataset(given, ["confidence"], base, **SETTINGS)
    assert 0 < min(scored["score_confidence"]) < max(scored["score_confidence"]) < 1


def test_a_causal_language_model_needs_no_labels():
    case = TASK_CASES["causal_lm"]
    model = case.student()
    settings = {"processing_class": tiny_tokenizer(), "num_train_epochs": 1, "batch_size": 8}
    scored = score_dataset(rows(), ["perplexity"], model, **settings)
    for text, value in zip(TEXTS, scored["score_perplexity"], strict=True):
        ids = torch.tensor([tiny_tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss
        assert value == pytest.approx(loss.exp().item(), rel=1e-3)


def test_images_are_read_at_the_moment_of_training():
    from PIL import Image
    from transformers import ViTImageProcessor

    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)
    given = Dataset.from_dict({"image": [Image.fromarray(picture) for picture in pixels], "label": LABELS})
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    model = TASK_CASES["image_classification"].student()
    scored = score_dataset(given, ["aum"], model, processing_class=processor, **SETTINGS)
    assert np.isfinite(scored["score_aum"]).all()


def test_a_row_without_a_label_has_no_score(base):
    labels = [0, 1, -100, 0, 1, 0, 1, 0]
    scored = score_dataset(rows(label=labels), ["aum", "forgetting"], base, **SETTINGS)
    for name in ("score_aum", "score_forgetting"):
        assert np.isnan(scored[name]).nonzero()[0].tolist() == [2]


def test_rows_come_from_a_folder_and_its_split(base, tmp_path):
    named().to_parquet(tmp_path / "train.parquet")
    named().select([0]).to_parquet(tmp_path / "test.parquet")
    scored = score_dataset(tmp_path, ["el2n"], base, split="train[:5]", **SETTINGS)
    assert scored["text"] == TEXTS[:5]


def test_own_arguments_rule_and_their_folder_is_kept_and_resumed_from(base, tmp_path):
    args = arguments(tmp_path / "out", save_strategy="steps", save_steps=3)
    whole = score_dataset(named(), ["aum"], base, args=args, num_train_epochs=50)
    assert (tmp_path / "out" / "checkpoint-9").is_dir()
    assert args.remove_unused_columns
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_train_epochs"] == 3
    resumed = score_dataset(named(), ["aum"], base, args=args, resume_from_checkpoint=checkpoint)
    assert resumed["score_aum"] == whole["score_aum"]


def test_several_scores_read_one_run(base, monkeypatch):
    runs = []
    monkeypatch.setattr(
        Trainer, "train", lambda self, train=Trainer.train, **kwargs: runs.append(train(self, **kwargs))
    )
    scored = score_dataset(named(), list(SCORES), base, **SETTINGS)
    assert len(runs) == 1
    assert set(scored.column_names) >= {f"score_{name}" for name in SCORES}


def test_a_model_that_has_not_learned_is_said(base, caplog):
    two, still = ClassLabel(names=["no", "yes"]), {"learning_rate": 0.0, "num_train_epochs": 1}
    labels = [i % 2 for i in range(8)]
    first = score_dataset(rows(label=labels).cast_column("label", two), ["correctness"], base, **still)
    wrong = [1 - label if right else label for label, right in zip(labels, first["score_correctness"], strict=True)]
    score_dataset(rows(label=wrong).cast_column("label", two), ["el2n"], base, **still)
    assert "0% of the rows were answered rightly" in caplog.text


def test_a_model_that_has_learned_goes_without_a_word(base, caplog):
    score_dataset(rows(label=[0] * 8), ["el2n"], base, **SETTINGS)  # as many classes as there must be: two
    assert "answered rightly" not in caplog.text


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scores": ["el2m"]}, "`scores` must be one of .* Did you mean 'el2n'"),
        ({"scores": []}, "`scores` must be a list of names"),
        ({"num_train_epochs": 0}, "`num_train_epochs` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"dataset": rows(label=LABELS, score_aum=LABELS)}, r"`dataset` must not hold \['score_aum'\] already"),
        ({"dataset": rows(label=LABELS).select([])}, "`dataset` must hold at least 1 row"),
        (
            {"dataset": rows()},
            "`model` must answer with classes or tokens to score rows, got one for feature_extraction",
        ),
        ({"dataset": rows(label=[0.5] * 8)}, "`model` must answer with classes or tokens .* regression"),
        ({"label_column": "lable"}, "`label_column` must be one of"),
        ({"model": "/nowhere/at/all"}, "`model` must be a folder or a Hub id"),
    ],
)
def test_bad_input_is_refused_before_any_training(base, monkeypatch, change, error):
    monkeypatch.setattr(Trainer, "train", None)
    with pytest.raises(ShrinkError, match=error):
        score_dataset(**{"dataset": named(), "scores": ["aum"], "model": base, **change})


def test_labels_that_a_fine_tuned_model_does_not_know_are_refused(tmp_path):
    tiny_bert_classifier(2).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ShrinkError, match=r"`label_column` must hold class ids in \[0, 2\)"):
        score_dataset(rows(label=LABELS), ["aum"], tmp_path)


@pytest.mark.slow
def test_wrong_labels_of_real_rows_are_found():
    """banking77's first classes with every fifth label wrong, and a small pretrained model."""
    from sklearn.metrics import roc_auc_score

    from hf_shrink.cli.quickstart_stages import model_source
    from tests.dataset_distillation.real_rows import flipped_rows

    given, wrong = flipped_rows(classes=4, rows=160)
    settings = {"learning_rate": 3e-4, "num_train_epochs": 4, "max_length": 24}
    scored = score_dataset(given, ["aum", "el2n", "confidence"], model_source(None), batch_size=16, **settings)
    for name, sign in (("aum", -1), ("el2n", 1), ("confidence", -1)):
        assert roc_auc_score(wrong, sign * np.array(scored[f"score_{name}"])) > 0.9, name
