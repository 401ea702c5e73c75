"""Teacher losses, one a file; each compares student and teacher position by position, or row by row.

What a loss reads is recorded with it: `compares="logits"`, `"hidden"` or `"rows"`, and for logits what they stand for:
`outputs="classes"` (softmax), `"labels"` (a sigmoid each) or `"values"` (numbers).
"""

from hf_shrink.registry import Registry

LOSSES = Registry("logit_loss", __name__)

__all__ = ["LOSSES"]
