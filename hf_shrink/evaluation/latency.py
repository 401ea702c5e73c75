"""Latency of one forward pass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one forward pass, with the conditions without which the number says nothing.

    Args:
        p50_ms: Median, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        runs: Timed passes, after warm-up.
        batch_size: Rows a pass.
        sequence_length: Tokens a row; None where the input is not text.
        threads: Threads inside one operator.
        dtype: Type of the weights, such as "float32"; of an exported graph all that occur, such as "float32+int8".
        device: Such as "cpu".
    """

    p50_ms: float
    p95_ms: float
    runs: int
    batch_size: int
    sequence_length: int | None
    threads: int
    dtype: str
    device: str
