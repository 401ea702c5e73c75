"""Model quantization: 8- and 4-bit export that is proved to load, and training for few bits."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "QUANTIZERS": "hf_shrink.quantization.backends",
        "QuantizationAwareCallback": "hf_shrink.quantization.awareness",
        "QuantizedArtifact": "hf_shrink.quantization.artifact",
        "SensitivityMap": "hf_shrink.quantization.sensitivity",
        "quantization_sensitivity": "hf_shrink.quantization.sensitivity",
        "quantize": "hf_shrink.quantization.export",
    },
)
