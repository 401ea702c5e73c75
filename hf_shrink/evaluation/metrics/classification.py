"""Metrics on class ids, label sets and tags, through scikit-learn."""

from typing import Any

import numpy as np

from hf_shrink.evaluation.metrics import METRICS

CLASSES = ("single_label_classification", "image_classification", "audio_classification")
LABELS = (*CLASSES, "multi_label_classification", "token_classification")
SKLEARN = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics."


@METRICS.add(
    "accuracy",
    paper=SKLEARN + "accuracy_score.html",
    tasks=LABELS,
    higher_is_better=True,
    percent=True,
    trials=(*CLASSES, "multi_label_classification"),  # the tokens of one sentence are not independent
)
def accuracy(predictions: Any, references: Any) -> float:
    """Share of equal labels; of label sets, the share of rows with the whole set right.

    Args:
        predictions: Class ids (N,), label sets (N, C) of 0 and 1, or a list of tags for each of N rows.
        references: The same kind and shape.

    Returns:
        Share in [0, 1].
    """
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(flat(references), flat(predictions)))


@METRICS.add(
    "balanced_accuracy",
    paper=SKLEARN + "balanced_accuracy_score.html",
    tasks=CLASSES,
    higher_is_better=True,
    percent=True,
    trials=(),
)
def balanced_accuracy(predictions: Any, references: Any) -> float:
    """Mean recall of the classes that occur in the references.

    Args:
        predictions: Class ids (N,).
        references: Class ids (N,).

    Returns:
        Share in [0, 1].
    """
    from sklearn.metrics import recall_score

    classes = np.unique(references)
    return float(recall_score(references, predictions, labels=classes, average="macro", zero_division=0))


@METRICS.add("f1", paper=SKLEARN + "f1_score.html", tasks=LABELS, higher_is_better=True, percent=True, trials=())
def f1(predictions: Any, references: Any) -> float:
    """F1 of class 1 where the labels are 0 and 1, else the mean F1 of the classes.

    Args:
        predictions: Class ids (N,), label sets (N, C) of 0 and 1, or a list of tags for each of N rows.
        references: The same kind and shape.

    Returns:
        Share in [0, 1]; 0 where a class is neither predicted nor referred to.
    """
    found, wanted = np.asarray(flat(predictions)), np.asarray(flat(references))
    binary = wanted.ndim == 1 and set(np.union1d(found, wanted).tolist()) <= {0, 1}
    return _f1(found, wanted, "binary" if binary else "macro")


@METRICS.add("f1_macro", paper=SKLEARN + "f1_score.html", tasks=LABELS, higher_is_better=True, percent=True, trials=())
def f1_macro(predictions: Any, references: Any) -> float:
    """Mean F1 of the classes.

    Args:
        predictions: Class ids (N,), label sets (N, C) of 0 and 1, or a list of tags for each of N rows.
        references: The same kind and shape.

    Returns:
        Share in [0, 1].
    """
    return _f1(flat(predictions), flat(references), "macro")


@METRICS.add("f1_micro", paper=SKLEARN + "f1_score.html", tasks=LABELS, higher_is_better=True, percent=True, trials=())
def f1_micro(predictions: Any, references: Any) -> float:
    """F1 over the decisions of all classes together.

    Args:
        predictions: Class ids (N,), label sets (N, C) of 0 and 1, or a list of tags for each of N rows.
        references: The same kind and shape.

    Returns:
        Share in [0, 1].
    """
    return _f1(flat(predictions), flat(references), "micro")


@METRICS.add(
    "matthews_correlation",
    paper=SKLEARN + "matthews_corrcoef.html",
    tasks=CLASSES,
    higher_is_better=True,
    percent=False,
    trials=(),
)
def matthews_correlation(predictions: Any, references: Any) -> float:
    """Matthews correlation: 1 is perfect, 0 no better than chance, also for skewed classes.

    Args:
        predictions: Class ids (N,).
        references: Class ids (N,).

    Returns:
        Correlation in [-1, 1].
    """
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def flat(labels: Any) -> Any:
    """One list of all tags, where each row has a list of them.

    Args:
        labels: An array, or a list of labels or of lists of labels.

    Returns:
        The array as it is, or a flat list.
    """
    if isinstance(labels, np.ndarray) or not len(labels) or not isinstance(labels[0], list | tuple):
        return labels
    return [label for row in labels for label in row]


def _f1(predictions: Any, references: Any, average: str) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average=average, zero_division=0))
