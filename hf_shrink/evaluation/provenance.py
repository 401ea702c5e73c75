"""Where a model comes from: base, data, licences and the methods that made it small."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hf_shrink.errors import ShrinkError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class MethodUse:
    """One method, as it was used.

    Args:
        name: Its name in the registry, such as "forward_kl".
        title: What a card calls it, such as "Knowledge distillation".
        paper: arXiv number ("arXiv:1503.02531") or the address of its source, where there is one.
        options: The options it ran with; JSON values only.

    Raises:
        ShrinkError: If an option is not a JSON value.
    """

    name: str
    title: str
    paper: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            # Tuples become lists now, so that a report equals itself after a trip through a file.
            object.__setattr__(self, "options", json.loads(json.dumps(dict(self.options), allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise ShrinkError(
                f"`options` must hold JSON values only, got {self.options!r}: {error}. Write objects as their names."
            ) from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MethodUse":
        """Build from what `dataclasses.asdict` made.

        Args:
            values: Field name to JSON value.

        Returns:
            The method use.
        """
        return cls(**values)


@dataclass(frozen=True)
class Provenance:
    """What a card must say of a model's origin; what is not known stays None or empty.

    Args:
        base_model: Hub id of the original. Never a local path: it would lead readers of the card nowhere.
        license: Hub identifier of the model's licence, such as "apache-2.0".
        datasets: Hub ids or names of the training data.
        dataset_license: Hub identifier of the data's licence.
        language: ISO 639-1 codes, such as ("en",).
        pipeline_tag: The Hub's name of the task, such as "text-classification".
        methods: What was done, in order.
        notes: Sentences that a card prints as they are.

    Raises:
        ShrinkError: If `base_model` is not a Hub id.
    """

    base_model: str | None = None
    license: str | None = None
    datasets: tuple[str, ...] = ()
    dataset_license: str | None = None
    language: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    methods: tuple[MethodUse, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.base_model is not None and not HUB_ID.fullmatch(self.base_model):
            raise ShrinkError(
                f"`base_model` must be a Hub id such as 'google-bert/bert-base-uncased', got {self.base_model!r}. "
                "Leave it None for a model that is not on the Hub."
            )
        for name in ("datasets", "language", "methods", "notes"):
            if isinstance(getattr(self, name), str):
                raise ShrinkError(
                    f"`{name}` must be a tuple, got {getattr(self, name)!r}. Write it as a tuple of one."
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Provenance":
        """Build from what `dataclasses.asdict` made, also after a trip through JSON.

        Args:
            values: Field name to JSON value; tuples may have become lists.

        Returns:
            The provenance.
        """
        known = {name.name: values[name.name] for name in fields(cls) if name.name in values}
        known["methods"] = tuple(MethodUse.from_dict(use) for use in known.get("methods", ()))
        return cls(**known)
