"""Rows with twins, and the plain way to find them."""

import random

import numpy as np

WORDS = "card transfer refund account pin top up cash limit fee rate order phone app bank pending declined".split()


def sentences(count, seed=0, length=12):
    """Sentences of a small vocabulary, of which every fourth is another one with a word changed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        if number % 4 == 3:
            words = rng.choice(made).split()
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        else:
            words = rng.choices(WORDS, k=rng.randint(3, length))
        made.append(" ".join(words))
    return made


def grams(text, size=5):
    text = text.ljust(size, "\0")
    return {text[i : i + size] for i in range(len(text) - size + 1)}


def jaccard(a, b, of=grams):
    a, b = of(a), of(b)
    return len(a & b) / len(a | b)


def directions(count, width=24, seed=0, spread=0.3):
    """Unit vectors around a few centres, so that some are near each other."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(count // 6, 1), width))
    vectors = centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def as_set(pairs):
    return {(int(i), int(j)) for i, j in zip(pairs[0], pairs[1], strict=True)}
