"""Pruning: a callback for any Trainer, masks without training, physically smaller models."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CRITERIA": "hf_shrink.pruning.criteria",
        "PruningCallback": "hf_shrink.pruning.callback",
        "PruningConfig": "hf_shrink.pruning.config",
        "STRUCTURES": "hf_shrink.pruning.structures",
    },
)
