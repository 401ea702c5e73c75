"""Settings that were measured together: `preset` fills in what the user left at its default."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "classification": {
            "temperature": 2.0,
            "hidden_weight": 10.0,
            "hidden_loss": "hidden_mse",
            "layer_map": "last",
            "pooling": "cls",
            "disable_dropout": True,
        }
    }
)
