"""Rows of which one in four has a wrong label, and how well a probe learns from a few of them."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from hf_shrink.dataset_distillation import SCORES, SELECTORS, Candidates
from hf_shrink.dataset_distillation.linear_dynamics import linear_dynamics
from tests.dataset_distillation.selectors.rows import unit

CLASSES = 6


def noisy_accuracy(selector: str, count: int, seeds: int = 3, **options: object) -> float:
    """Mean accuracy on clean rows, of a probe on `count` rows picked class by class."""
    found = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        labels = np.arange(1200) % CLASSES
        rows = unit(np.eye(CLASSES, 32)[labels] + 0.2 * generator.standard_normal((1200, 32)))
        given = np.where(generator.random(1200) < 0.25, generator.integers(0, CLASSES, 1200), labels)
        given[600:] = labels[600:]  # the clean rows, which are not picked from
        picked = _pick(selector, rows[:600], given[:600], count, generator, options)
        probe = LogisticRegression(C=10).fit(rows[picked], given[picked])
        found.append(probe.score(rows[600:], labels[600:]))
    return float(np.mean(found))


def _pick(selector, rows, labels, count, generator, options):
    method, scores = SELECTORS[selector], linear_dynamics(rows, labels)
    score = SCORES[method.facts.get("score", "aum")]
    difficulty = score.function(scores) * (1 if score.facts["hard"] == "high" else -1)
    picked = []
    for label in range(CLASSES):
        own = np.flatnonzero(labels == label)
        candidates = Candidates(len(own), rows[own], difficulty[own])
        picked.append(own[method.function(candidates, count // CLASSES, generator, **options).rows])
    return np.concatenate(picked)
