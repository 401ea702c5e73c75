"""The rows that may be kept, with all that selectors read of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates
from hf_shrink.dataset_distillation.linear_dynamics import linear_dynamics
from hf_shrink.dataset_distillation.scores import SCORES
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.dataset_distillation.strata import Strata
from hf_shrink.errors import ShrinkError


@dataclass(frozen=True)
class Pool:
    """Rows to choose from.

    Args:
        strata: What their labels say.
        embeddings: Shape (N, D), float32, unit length; None where nothing reads them.
        targets: Shape (M, D), embeddings of the rows that matter.
        columns: The dataset's own scores, name to values of shape (N,).
        seed: Of everything that is random.
    """

    strata: Strata
    embeddings: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    seed: int = 0

    def __len__(self) -> int:
        return len(self.strata.ids)

    def only(self, rows: NDArray[np.int64], *, seed: int | None = None) -> "Pool":
        """A part of the rows.

        Args:
            rows: Their positions.
            seed: Another seed.

        Returns:
            A pool in which they are counted from 0.
        """
        return Pool(
            self.strata.only(rows),
            None if self.embeddings is None else self.embeddings[rows],
            self.targets,
            {name: values[rows] for name, values in self.columns.items()},
            self.seed if seed is None else seed,
        )

    def candidates(self, method: Any, rows: NDArray[np.int64]) -> Candidates:
        """What a selector is given.

        Args:
            method: Name in `SELECTORS`, or a callable, which gets all that there is.
            rows: The rows that it picks from.

        Returns:
            The candidates.
        """
        reads = reads_of(method)
        labels = self.strata.labels
        hard = self.difficulty(method)[rows] if "difficulty" in reads else None
        return Candidates(
            size=len(rows),
            embeddings=self.embeddings[rows] if "embeddings" in reads and self.embeddings is not None else None,
            difficulty=hard,
            targets=self.targets if "targets" in reads else None,
            labels=None if labels is None else labels[rows],
        )

    def difficulty(self, method: str) -> NDArray[np.float32]:
        """How hard each row is to learn.

        Args:
            method: A selector that reads it.

        Returns:
            Shape (N,), higher is harder.
        """
        name = SELECTORS[method].facts["score"]
        return self.score(name) if SCORES[name].facts["hard"] == "high" else -self.score(name)

    def score(self, name: str) -> NDArray[np.float32]:
        """A score of each row: the dataset's own, else that of a linear head on the embeddings.

        Args:
            name: Name in `SCORES`.

        Returns:
            Shape (N,).
        """
        return self.columns[name] if name in self.columns else SCORES[name].function(self._dynamics)

    @cached_property
    def _dynamics(self) -> Mapping[str, NDArray[np.float32]]:
        if self.embeddings is None or self.strata.kind != "classes":
            raise ShrinkError(
                "`method` must be one that needs no scores where there are no classes or no embeddings. Add the "
                "scores with score_dataset() first."
            )
        return linear_dynamics(self.embeddings, self.strata.ids, seed=self.seed)


def reads_of(method: str | Callable[..., Any]) -> tuple[str, ...]:
    """Fields of `Candidates` that a selector needs.

    Args:
        method: Name in `SELECTORS`, or a callable.

    Returns:
        The fields' names.
    """
    return ("embeddings", "targets") if callable(method) else SELECTORS[method].facts["reads"]


def in_strata(method: str | Callable[..., Any]) -> bool:
    """Whether a selector is asked for each stratum by itself.

    Args:
        method: Name in `SELECTORS`, or a callable, which is.

    Returns:
        True or False.
    """
    return True if callable(method) else SELECTORS[method].facts["strata"]
