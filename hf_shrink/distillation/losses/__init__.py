"""Teacher losses on logits, one a file; each compares student and teacher position by position."""

from hf_shrink.registry import Registry

LOSSES = Registry("logit_loss", __name__)

__all__ = ["LOSSES"]
