"""What a training run tells of each row: one file a score, registered with its paper.

A score is a function of the dynamics of a run: a mapping from the name of a statistic to its values, shape (E, N),
float32, for E epochs and N rows, NaN where a row was not seen in an epoch. It returns one value a row, shape (N,),
float32.

Each registers two facts beside its paper. `reads` is a tuple of the statistics that it needs (`STATISTICS` in
`dynamics.py` says what there is), and `hard` says which of its values mark rows that are hard to learn: "high" or
"low".
"""

from hf_shrink.registry import Registry

SCORES = Registry("scores", __name__)
COLUMN = "score_"  # begins the name of each score's column

__all__ = ["COLUMN", "SCORES"]
