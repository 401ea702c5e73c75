"""How a method stores numbers, as data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Format:
    """The numbers of a quantized model.

    Args:
        bits: Of one weight of a matrix product.
        group_size: Weights of a row that share a scale; None gives each output channel one.
        symmetric: Whether zero is in the middle of the grid; without that each scale has a zero point.
        embedding_bits: Of one number of an embedding; 16 or 32 where embeddings stay in float.
        activations: How the inputs of a product get their 8 bits: "dynamic" finds the range of a batch as it runs,
            "block" that of each group of a row, "static" over calibration rows before; None leaves them in float.
        scale_bits: Of one scale; a zero point beside it takes as many bits as a weight.
        float_bits: Of what stays in float.
        tied_once: Whether a weight that an embedding and a head share stands in the file once.
    """

    bits: int
    group_size: int | None
    symmetric: bool
    embedding_bits: int
    activations: Literal["dynamic", "block", "static"] | None
    scale_bits: int = 32
    float_bits: int = 32
    tied_once: bool = True
