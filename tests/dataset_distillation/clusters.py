"""Rows in clusters: what selectors that cover the data should do well on, and a sample by lot does not."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.strata import Strata

CLASSES = ("card", "money", "pin", "top up")


def clustered(rows=600, classes=4, per_class=6, width=24, spread=0.35, seed=0):
    """Vectors of unit length and class ids; each class has clusters of very unequal size, and the order is mixed."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes * per_class, width))
    weights = np.tile(0.5 ** np.arange(per_class), classes)
    cluster = generator.choice(len(centres), rows, p=weights / weights.sum())
    cluster[: len(centres)] = np.arange(len(centres))
    vectors = centres[cluster] + spread * generator.normal(size=(rows, width)) * np.sqrt(width) / 5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), (cluster // per_class).astype(np.int64)


def pool(seed=0, **settings):
    vectors, ids = clustered(seed=seed, **settings)
    return Pool(Strata("classes", ids, tuple(f"class {i}" for i in range(ids.max() + 1))), vectors, seed=seed)


def noise_pool(rows=400, classes=4, seed=0):
    """Labels that vectors say nothing of: no method can beat a sample."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = generator.permutation(np.arange(rows) % classes)
    return Pool(Strata("classes", ids, tuple(map(str, range(classes)))), vectors, seed=seed)


def labelled_rows(**settings):
    """The same as a dataset, with the vectors beside it."""
    vectors, ids = clustered(**settings)
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(CLASSES))})
    texts = [f"row {i} speaks of {CLASSES[k]}" for i, k in enumerate(ids)]
    return Dataset.from_dict({"text": texts, "label": ids.tolist()}, features=features), vectors
