"""What is known of each model family, as data: where its layers are, what their parts are called, what may be cut."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Architecture": "hf_shrink.architectures.description",
        "Attention": "hf_shrink.architectures.description",
        "FeedForward": "hf_shrink.architectures.description",
        "FirstLayerModule": "hf_shrink.architectures.description",
        "LayerStack": "hf_shrink.architectures.description",
        "architecture_of": "hf_shrink.architectures.known",
        "find_layers": "hf_shrink.architectures.layers",
        "register_architecture": "hf_shrink.architectures.known",
    },
)
