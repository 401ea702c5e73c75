"""Teacher losses, one a file; each takes what student and teacher put out and gives one value a position or row.

Each registers two facts beside its paper. `compares` is "positions" where each position stands by itself, and "rows"
where the rows of a batch are held against each other, so that splitting the batch changes the loss. `outputs` is a
tuple of the kinds of outputs that it can compare: "classes" (logits of one softmax), "spans" (of one over
the tokens), "labels" (logits of independent sigmoids), "values" (regression), "features" (embedding vectors), "hidden"
(hidden states), "attention" (scores of attention over its keys) and "relations" (the same among queries, among keys or
among values). In the last two -inf marks a key that is masked.
"""

from hf_shrink.registry import Registry

LOSSES = Registry("logit_loss", __name__)

__all__ = ["LOSSES"]
