"""Which of several licences binds what is made from all of them."""

from collections.abc import Sequence

from datasets import Dataset

from hf_shrink.errors import ShrinkError

# By what they ask of those who pass the work on: nothing, a notice, the same licence, no commerce, no change.
RANKS = (
    ("cc0-1.0", "unlicense", "wtfpl", "pddl"),
    (
        "mit",
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "odc-by",
    ),
    ("cc-by-sa-3.0", "cc-by-sa-4.0", "odbl", "lgpl-3.0", "mpl-2.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"),
    ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
)
LICENSES = {name: rank for rank, names in enumerate(RANKS) for name in names}


def most_restrictive(licenses: Sequence[str]) -> str:
    """Find the licence that asks most.

    Args:
        licenses: The Hub's identifiers.

    Returns:
        The one of the highest rank, the first of several; "other" where two ask for themselves, or one is not known.

    Raises:
        ShrinkError: If there is none.
    """
    names = list(dict.fromkeys(licenses))
    if not names:
        raise ShrinkError("`license` must hold an identifier, got an empty list. Leave it out where there is none.")
    if len(names) > 1 and any(name not in LICENSES for name in names):
        return "other"
    highest = max(LICENSES.get(name, 0) for name in names)
    binding = [name for name in names if LICENSES.get(name, 0) == highest]
    share_alike = 2
    return "other" if len(binding) > 1 and highest == share_alike else binding[0]


def license_of(dataset: Dataset, given: str | Sequence[str] | None) -> str | None:
    """What a card says of a dataset's licence.

    Args:
        dataset: The rows.
        given: The Hub's identifier, or several, or None.

    Returns:
        The most restrictive of those given, else the one that the rows carry, if the Hub knows it.
    """
    if given is None:
        return dataset.info.license if dataset.info.license in LICENSES else None
    return given if isinstance(given, str) else most_restrictive(given)
