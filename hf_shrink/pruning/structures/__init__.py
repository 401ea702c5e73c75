"""What is pruned as a whole: one file a structure, registered with its paper.

A structure is a function `(model, linears, **options)` that returns a `Structure`. It registers two facts beside its
paper: `form` is what users write, and `pattern` is a regular expression over it whose named groups are the options,
whole numbers.
"""

import re
from collections.abc import Sequence

from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.structures.structure import Structure
from hf_shrink.pruning.targets import find_targets
from hf_shrink.registry import Method, Registry

STRUCTURES = Registry("structure", __name__)

__all__ = ["STRUCTURES", "Structure", "make_structure", "parse_structure"]


def make_structure(model: nn.Module, name: str, targets: Sequence[str], ignore: Sequence[str]) -> Structure:
    """Lay a structure over a model.

    Args:
        model: Any model, with an adapter or without; it stays as it is.
        name: "unstructured", "2:4" or any N:M, "block:32x32", "neurons" or "heads".
        targets: What is pruned, as for `find_targets`.
        ignore: What is not, in the same forms.

    Returns:
        Its units over the model's own parameters.
    """
    method, options = parse_structure(name)
    return method.function(model, find_targets(model, targets, ignore), **options)


def parse_structure(name: str) -> tuple[Method, dict[str, int]]:
    """Read what users write.

    Args:
        name: Such as "2:4".

    Returns:
        The method and its options, such as n=2 and m=4.

    Raises:
        ShrinkError: If it is none of the forms that there are.
    """
    for method in STRUCTURES.values():
        if isinstance(name, str) and (found := re.fullmatch(method.facts["pattern"], name)) is not None:
            return method, {option: int(value) for option, value in found.groupdict().items()}
    forms = ", ".join(method.facts["form"] for method in STRUCTURES.values())
    raise ShrinkError(f"`structure` must be one of {forms}, got {name!r}. Choose one of these.")
