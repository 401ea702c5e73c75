"""Quantizers, one file a library: each writes a model's folder and says nothing of what it did not write."""

from hf_shrink.registry import Registry

QUANTIZERS = Registry("method", __name__)  # quantizer(model, folder, *, task) -> None; fact `extra`: what installs it

__all__ = ["QUANTIZERS"]
