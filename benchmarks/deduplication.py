"""Duplicates: near texts against rensa and datasketch by hand, near embeddings against SemHash, in one run.

pip install rensa datasketch semhash
python benchmarks/deduplication.py --rounds 5

Texts: questions to a bank, of which each third is another one with a word changed. All arms cut them into the same
runs of five characters and sign them with as many permutations; the time of this project includes reading the dataset,
normalising, comparing each candidate in full and the report. datasketch gets fewer rows: its time is taken a row.

Embeddings: unit vectors around centres. All arms get the same ones; SemHash has its default index. Pairs that are
missed are counted against all pairs of the whole matrix, in float64.

Each round runs every arm in turn, so that a busy machine slows all of them; a ratio is taken within its round; every
other round goes backwards.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars

from hf_shrink import find_duplicates
from hf_shrink.cli.quickstart_stages import BANKING77
from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.row_texts import normalise
from hf_shrink.dataset_distillation.shingles import SIZE
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.inputs import load_rows

RESULTS = Path(__file__).parent / "results" / "deduplication.json"
THRESHOLD = 0.9
PERMUTATIONS, BANDS = 128, 16  # what `minhash` takes at 0.9
CENTRES = 0.08  # of the rows


def draw_texts(count: int) -> list[str]:
    """Normalised questions, each of them once."""
    rng = random.Random(0)
    real = [normalise(text) for text in load_rows(BANKING77, split="train")["text"]]
    words = [word for text in real for word in text.split()]
    texts = dict.fromkeys(real)
    while len(texts) < count:
        chosen = " ".join(rng.choices(words, k=rng.randint(8, 20)))
        texts[chosen] = None
        if rng.random() < 0.5:
            changed = chosen.split()
            changed[rng.randrange(len(changed))] = rng.choice(words)
            texts[" ".join(changed)] = None
    drawn = list(texts)[:count]
    rng.shuffle(drawn)
    return drawn


def draw_vectors(count: int, width: int) -> np.ndarray:
    """Unit vectors around centres, some of them near each other."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(round(CENTRES * count), width))
    spread = rng.uniform(0.2, 0.9, size=(count, 1))
    vectors = centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def shingles(texts: list[str]) -> list[list[str]]:
    """As one does it by hand."""
    return [[text[i : i + SIZE] for i in range(max(len(text) - SIZE + 1, 1))] for text in texts]


def rensa_deduplicator(texts: list[str]) -> int:
    """Its documented way."""
    from rensa import RMinHashDeduplicator

    found = RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, True, num_bands=BANDS, seed=0)
    kept = found.add_pairs((str(row), tokens) for row, tokens in enumerate(shingles(texts)))
    return len(texts) - sum(kept)


def rensa_batch(texts: list[str]) -> int:
    """Its fastest way over whole sets of shingles; rows with a candidate, which nothing has compared yet."""
    from rensa import RMinHash, RMinHashLSH

    signatures = RMinHash.digest_matrix_from_token_sets(shingles(texts), num_perm=PERMUTATIONS, seed=0)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=BANDS)
    return sum(index.query_duplicate_flags_matrix_one_shot(signatures))


def datasketch_by_hand(texts: list[str]) -> int:
    """Its documented way."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(params=(BANDS, PERMUTATIONS // BANDS), num_perm=PERMUTATIONS)
    kept: dict[int, Any] = {}
    for row, tokens in enumerate(shingles(texts)):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([token.encode() for token in tokens])
        if not any(kept[other].jaccard(signature) >= THRESHOLD for other in index.query(signature)):
            index.insert(row, signature)
            kept[row] = signature
    return len(texts) - len(kept)


def ours(method: str, rows: Dataset, **more: Any) -> int:
    """This project."""
    return len(find_duplicates(rows, method, THRESHOLD, **more))


def semhash_index(vectors: np.ndarray) -> Any:
    """SemHash, with its default index."""
    from semhash import SemHash

    return SemHash.from_embeddings(vectors, [str(row) for row in range(len(vectors))], model=None)


def semhash_by_hand(vectors: np.ndarray) -> int:
    """Index, and duplicates by it."""
    return len(semhash_index(vectors).self_deduplicate(threshold=THRESHOLD).filtered)


def all_pairs(vectors: np.ndarray) -> set[tuple[int, int]]:
    """Pairs by brute force."""
    found, double = set(), vectors.astype(np.float64)
    for start in range(0, len(double), 500):
        i, j = np.nonzero(double[start : start + 500] @ double.T >= THRESHOLD + 1e-6)  # float32 decides over no others
        found |= {(a, b) for a, b in zip((i + start).tolist(), j.tolist(), strict=True) if a < b}
    return found


def missed(vectors: np.ndarray) -> dict[str, int]:
    """Pairs of the whole matrix that each arm does not see."""
    wanted, everyone = all_pairs(vectors), np.arange(len(vectors))
    i, j, _ = DUPLICATE_METHODS["semantic"].function(vectors, THRESHOLD).pairs(everyone, everyone)
    near = {(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < b}
    neighbours = semhash_index(vectors).index.query_threshold(vectors, threshold=THRESHOLD)
    theirs = {(min(a, b), max(a, b)) for a, (others, _) in enumerate(neighbours) for b in map(int, others)}
    return {"pairs": len(wanted), "hf_shrink semantic": len(wanted - near), "SemHash": len(wanted - theirs)}


def rounds(arms: dict[str, Callable[[], int]], count: int) -> dict[str, Any]:
    """Seconds of each arm in each round, and what it found."""
    seconds: list[dict[str, float]] = []
    found: dict[str, int] = {}
    for number in range(count):
        taken = {}
        for arm in list(arms)[:: -1 if number % 2 else 1]:
            begin = time.perf_counter()
            found[arm] = arms[arm]()
            taken[arm] = time.perf_counter() - begin
        seconds.append(taken)
    return {"seconds": seconds, "found": found}


def ratio(result: dict[str, Any], arm: str, by: str, scale: float = 1.0) -> float:
    """How many times as fast `by` is as `arm`, the median over rounds."""
    return median(scale * taken[arm] / taken[by] for taken in result["seconds"])


def main() -> None:
    """Measure, print, and keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--datasketch-texts", type=int, default=2_000)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    disable_progress_bars()
    texts, vectors = draw_texts(options.texts), draw_vectors(options.vectors, options.width)
    rows, numbered = Dataset.from_dict({"text": texts}), Dataset.from_dict({"row": range(len(vectors))})
    few = texts[: options.datasketch_texts]
    near_texts = rounds(
        {
            "hf_shrink minhash": lambda: ours("minhash", rows),
            "hf_shrink jaccard": lambda: ours("jaccard", rows),
            "rensa, deduplicator": lambda: rensa_deduplicator(texts),
            "rensa, batch": lambda: rensa_batch(texts),
            "datasketch, fewer rows": lambda: datasketch_by_hand(few),
        },
        options.rounds,
    )
    near_vectors = rounds(
        {
            "hf_shrink semantic": lambda: ours("semantic", numbered, embeddings=vectors),
            "SemHash": lambda: semhash_by_hand(vectors),
        },
        options.rounds,
    )
    fewer = len(texts) / len(few)
    ratios = {
        "minhash over rensa's deduplicator": ratio(near_texts, "rensa, deduplicator", "hf_shrink minhash"),
        "minhash over rensa's batch": ratio(near_texts, "rensa, batch", "hf_shrink minhash"),
        "minhash over datasketch": ratio(near_texts, "datasketch, fewer rows", "hf_shrink minhash", fewer),
        "jaccard over rensa's deduplicator": ratio(near_texts, "rensa, deduplicator", "hf_shrink jaccard"),
        "semantic over SemHash": ratio(near_vectors, "SemHash", "hf_shrink semantic"),
    }
    result = {
        "environment": asdict(find_environment()),
        "peers": {name: version(name) for name in ("rensa", "datasketch", "semhash", "vicinity", "usearch")},
        "options": vars(options),
        "texts": near_texts,
        "vectors": near_vectors,
        "missed": missed(vectors),
        "ratios": ratios,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for name, times in ratios.items():
        print(f"{name:36} {times:6.2f} x")
    print(near_texts["found"], near_vectors["found"], result["missed"], sep="\n")


if __name__ == "__main__":
    main()
