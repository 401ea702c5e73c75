"""Soft labels: the teacher's own scores in the order of the dataset's classes, or those of a head out of fold."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from sklearn.datasets import make_blobs

from hf_shrink.dataset_distillation.soft_labels import (
    add_soft_labels,
    attach_soft_labels,
    out_of_fold_soft_labels,
)
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.labels import align_labels
from tests.dataset_distillation.encoding import TEXTS, save
from tests.dataset_distillation.test_encoder import pictures
from tests.distillation.tasks import TASK_CASES
from tests.models import tiny_bert_classifier, tiny_tokenizer

NAMES = ["lost", "transfer", "pin"]
LABELS = [i % 3 for i in range(len(TEXTS))]


def rows(names=tuple(NAMES), **columns):
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    made = Dataset.from_dict({"text": TEXTS, "label": LABELS}, features=features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def teacher(names=None, **config):
    model = tiny_bert_classifier(**config)
    if names is not None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    return model


def scores_of(model, texts=TEXTS):
    """Each row alone."""
    with torch.no_grad():
        found = [model(**tiny_tokenizer()(text, return_tensors="pt")).logits[0] for text in texts]
    return torch.stack(found).numpy()


def attached(dataset=None, model=None, **options):
    options = {"processing_class": tiny_tokenizer(), "batch_size": 3, **options}
    return attach_soft_labels(rows() if dataset is None else dataset, teacher() if model is None else model, **options)


def table(dataset):
    return np.array(dataset["soft_label"])


def test_the_column_holds_the_teachers_scores_in_half_precision():
    found = attached()
    assert found.features["soft_label"] == List(Value("float16"), length=3)
    np.testing.assert_allclose(table(found), scores_of(teacher()), rtol=1e-3, atol=1e-3)
    assert found.remove_columns("soft_label").to_dict() == rows().to_dict()
    assert found.features["label"] == rows().features["label"]


def test_a_teacher_in_training_mode_is_asked_without_dropout():
    model = teacher().train()
    np.testing.assert_array_equal(table(attached(model=model)), table(attached()))
    assert model.training


def test_a_folder_and_tokenised_rows(tmp_path):
    folder = save(teacher(), tmp_path)
    np.testing.assert_array_equal(table(attach_soft_labels(rows(), folder, batch_size=3)), table(attached()))
    tokens = tiny_tokenizer()(TEXTS)
    tokenised = Dataset.from_dict({**tokens, "labels": [str(label) for label in LABELS]})
    np.testing.assert_array_equal(table(attached(tokenised)), table(attached()))


def test_classes_are_matched_by_name():
    permuted = [NAMES[i] for i in (2, 0, 1)]
    found = attached(rows(permuted), teacher(NAMES))
    np.testing.assert_array_equal(table(found), table(attached())[:, [2, 0, 1]])
    written_out = rows().remove_columns("label").add_column("label", [NAMES[i] for i in LABELS])
    found = attached(written_out, teacher(NAMES), text_column="text", label_column="label")
    encoded = found.class_encode_column("label")
    assert encoded.features["label"].names == sorted(NAMES)
    np.testing.assert_array_equal(table(found), table(attached())[:, [NAMES.index(name) for name in sorted(NAMES)]])


def test_rows_without_labels_are_scored_in_the_teachers_order():
    np.testing.assert_array_equal(table(attached(rows().remove_columns("label"), teacher(NAMES))), table(attached()))


def test_labels_and_scores_are_put_in_a_models_order_together():
    permuted = [NAMES[i] for i in (2, 0, 1)]
    given = attached(rows(), teacher(NAMES))
    found = align_labels(given, "label", teacher(permuted).config)
    assert found.features["soft_label"] == given.features["soft_label"]
    np.testing.assert_array_equal(table(found), table(given)[:, [2, 0, 1]])
    own = np.arange(len(found))
    np.testing.assert_array_equal(table(found)[own, found["label"]], table(given)[own, given["label"]])


def test_scores_of_fewer_classes_than_a_models_are_not_moved():
    two = rows().filter(lambda row: row["label"] < 2).cast_column("label", ClassLabel(names=["transfer", "lost"]))
    scored = add_soft_labels(two, np.zeros((len(two), 2)))
    with pytest.raises(ShrinkError, match="a score for each of the model's 3 classes, but the dataset has 2"):
        align_labels(scored, "label", teacher(NAMES).config)


def test_the_column_survives_a_file(tmp_path):
    found = attached()
    found.to_parquet(tmp_path / "train.parquet")
    loaded = load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train")
    assert loaded.features == found.features
    np.testing.assert_array_equal(table(loaded), table(found))


def test_a_column_that_is_there_is_replaced():
    again = attached(attached(model=teacher(seed=1)))
    np.testing.assert_array_equal(table(again), table(attached()))


@pytest.mark.parametrize("task", ["multi_label_classification", "regression", "image_classification",
                                  "audio_classification"])  # fmt: skip
def test_other_tasks_with_one_vector_a_row(task):
    case = TASK_CASES[task]
    tokenizer = tiny_tokenizer() if "input_ids" in case.rows().column_names else None
    found = attach_soft_labels(case.rows(), case.teacher(), processing_class=tokenizer, batch_size=3)
    batch = {name: value for name, value in case.collator()(list(case.rows())).items() if name != "labels"}
    with torch.no_grad():
        expected = case.teacher()(**batch).logits.numpy()
    np.testing.assert_allclose(table(found), expected, rtol=1e-3, atol=1e-3)


def broken():
    model = teacher()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[tiny_tokenizer().convert_tokens_to_ids("cash")] = float("nan")
    return model


REFUSED = {
    "another task": ({"model": TASK_CASES["token_classification"].teacher()}, "`teacher` must be a model for one of"),
    "no model": ({"model": len}, "`model` must be a model"),
    "more classes": ({"model": teacher(num_labels=4)}, "`teacher` must have the 3 classes of 'label', got 4"),
    "other classes": ({"model": teacher(["lost", "transfer", "fee"])}, "in place of"),
    "NaN": ({"model": broken()}, "for row 3 it does not"),
    "no rows": ({"dataset": rows().select([])}, "at least 1 row"),
    "a batch of nothing": ({"batch_size": 0}, "`batch_size`"),
    "no such column": ({"label_column": "intent"}, "`label_column` must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_gives_no_soft_labels_is_refused(case):
    changes, match = REFUSED[case]
    with pytest.raises(ShrinkError, match=match):
        attached(**changes)


def test_scores_outside_half_precision_are_refused():
    model = teacher()
    with torch.no_grad():
        model.classifier.bias[1] = 1e6
    with pytest.raises(ShrinkError, match="at most 65504, but for row"):
        attached(model=model)


# ------------------------------------------------------------------ without a teacher
def blobs():
    return make_blobs(300, n_features=8, centers=3, cluster_std=4.0, random_state=0)


def test_a_row_is_scored_by_a_head_that_was_not_fitted_to_it():
    vectors, labels = blobs()
    found = out_of_fold_soft_labels(vectors, labels, seed=3)
    flipped = labels.copy()
    flipped[7] = (labels[7] + 1) % 3
    own = np.exp(found[7].astype(float))
    other = np.exp(out_of_fold_soft_labels(vectors, flipped, seed=3)[7].astype(float))
    np.testing.assert_allclose(own, other, atol=0.15)  # the folds are dealt by class, and so differ a little
    assert own.argmax() == labels[7]
    assert (found.argmax(1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(found.astype(float)).sum(1), 1, atol=2e-2)


def test_a_class_that_does_not_occur_has_a_score_too():
    vectors, labels = blobs()
    found = out_of_fold_soft_labels(vectors, labels, classes=5)
    assert found.shape == (300, 5)
    assert np.isfinite(found).all()
    assert (found[:, 3:] < found[:, :3].max(1, keepdims=True) - 10).all()
    assert add_soft_labels(Dataset.from_dict({"label": labels}), found).features["soft_label"].length == 5


HEADLESS = {
    "another length": (lambda v, y: (v, y[:-1], {}), "`labels` must be one class id"),
    "no class": (lambda v, y: (v, y - 1, {}), "`labels` must be one class id"),
    "more than the classes": (lambda v, y: (v, y, {"classes": 2}), r"in \[0, 2\)"),
    "one class": (lambda v, y: (v, y * 0, {}), "two classes or more"),
    "one fold": (lambda v, y: (v, y, {"folds": 1}), "`folds`"),
    "NaN": (lambda v, y: (v * np.nan, y, {}), "`embeddings`"),
}


@pytest.mark.parametrize("case", HEADLESS)
def test_what_no_head_can_be_fitted_to_is_refused(case):
    change, match = HEADLESS[case]
    vectors, labels, options = change(*blobs())
    with pytest.raises(ShrinkError, match=match):
        out_of_fold_soft_labels(vectors, labels, **options)


def test_pictures_are_scored():
    from transformers import ViTImageProcessor

    case, processor = TASK_CASES["image_classification"], ViTImageProcessor(size={"height": 8, "width": 8})
    found = attach_soft_labels(
        pictures().remove_columns("label"), case.teacher(), processing_class=processor, batch_size=2
    )
    pixels = processor([p.convert("RGB") for p in pictures()["image"]], return_tensors="pt")
    with torch.no_grad():
        expected = case.teacher()(**pixels).logits.numpy()
    np.testing.assert_allclose(table(found), expected, rtol=1e-3, atol=1e-3)
