"""To the Hub and back: one commit for weights, card and report, and downloads that are checked."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "download": "hf_shrink.hub.snapshot",
        "model_card": "hf_shrink.hub.card",
        "push_dataset_to_hub": "hf_shrink.hub.upload",
        "push_to_hub": "hf_shrink.hub.upload",
        "training_card": "hf_shrink.hub.card",
    },
)
