"""Keys of a great many rows, found by bisection."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_shrink.distillation.row_keys import KEY_BYTES

MERGED_AT = 100_000  # keys in a Python set, which takes six times the memory of an array


@dataclass(frozen=True)
class KeyIndex:
    """Keys that are found by bisection: 24 bytes a key, in arrays that processes can share.

    Args:
        keys: Sorted, each once.
        rows: Where each stands, same shape.
    """

    keys: NDArray[np.bytes_]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> "KeyIndex":
        """Index keys by their place.

        Args:
            keys: One a row; of equal ones the first counts.

        Returns:
            The index.
        """
        unique, rows = np.unique(np.array(list(keys), dtype=f"S{KEY_BYTES}"), return_index=True)
        return cls(unique, rows.astype(np.int64))

    def find(self, keys: Iterable[bytes]) -> NDArray[np.int64]:
        """Look keys up.

        Args:
            keys: B keys.

        Returns:
            Row of each, -1 where there is none.
        """
        wanted = np.array(list(keys), dtype=f"S{KEY_BYTES}")
        if not len(self.keys):
            return np.full(len(wanted), -1)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, self.rows[places], -1)

    def __len__(self) -> int:
        return len(self.keys)


class SeenKeys:
    """Tells which rows come for the first time.

    Args:
        known: Keys that count as seen.
    """

    def __init__(self, known: KeyIndex) -> None:
        self._known = known
        self._recent: set[bytes] = set()

    def first_seen(self, keys: list[bytes]) -> list[int]:
        """Find the new ones, and remember them.

        Args:
            keys: Of one batch.

        Returns:
            Places in the batch.
        """
        found = self._known.find(keys)
        new = []
        for place, key in enumerate(keys):
            if found[place] < 0 and key not in self._recent:
                self._recent.add(key)
                new.append(place)
        if len(self._recent) >= MERGED_AT:
            keys_so_far = np.concatenate([self._known.keys, np.array(list(self._recent), dtype=f"S{KEY_BYTES}")])
            self._known, self._recent = KeyIndex(np.sort(keys_so_far), np.arange(len(keys_so_far))), set()
        return new
