"""A row is found again by a hash of what the teacher reads of it, wherever and however padded it stands."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from hf_shrink.distillation.teacher import LABEL_NAMES
from hf_shrink.distillation.views import view_of, with_decoder_inputs
from hf_shrink.inputs.encoding import IGNORED

KEY_BYTES = 16
TOKEN_TASKS = ("token_classification", "question_answering", "masked_lm", "causal_lm")
WHOLE = ("pixel_values", "pixel_mask", "input_features")  # never one value a token, whatever their shape


@dataclass(frozen=True)
class RowReader:
    """What a teacher reads of the rows of a batch.

    Args:
        task: Name in `TASKS`.
        parameters: Arguments of the teacher's `forward`.
        config: The teacher's config.
        heard_only: Keep scores only of tokens at which a student listens. Which ones these are is then part of the
            key: the same text with labels at other tokens is another row.
    """

    task: str
    parameters: frozenset[str]
    config: PretrainedConfig
    heard_only: bool = False

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch that the teacher reads.

        Args:
            batch: What a collator made.

        Returns:
            Name to tensor of B rows, in the order of the names.
        """
        if self.task == "seq2seq_lm":
            batch = with_decoder_inputs(batch, self.config)
        known = self.parameters - set(LABEL_NAMES)
        return {name: batch[name] for name in sorted(known & set(batch)) if isinstance(batch[name], Tensor)}

    def keys(self, batch: Mapping[str, Any]) -> list[bytes]:
        """The key of each row; padding and the width of integers make no difference.

        Args:
            batch: What a collator made.

        Returns:
            B hashes of `KEY_BYTES` bytes.
        """
        inputs = self.inputs(batch)
        tokens, targets = self.tokens(batch), self._targets(batch)
        parts = []
        for name, tensor in inputs.items():
            own = targets if name.startswith("decoder_") else None if name in WHOLE else tokens
            fits = own is not None and tensor.shape[:2] == own.shape
            parts.append((name, _canonical(tensor), own.cpu().numpy() if own is not None and fits else None))
        if self.heard_only:
            heard, own = self.scored(batch), targets if self.task == "seq2seq_lm" else tokens
            if heard is not None:
                parts.append(("heard", _canonical(heard), None if own is None else own.cpu().numpy()))
        return [_digest(parts, row) for row in range(len(next(iter(inputs.values()))))]

    def tokens(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Where the tokens of each row stand, padding on either side left out.

        Args:
            batch: What a collator made.

        Returns:
            Shape (B, T), True from a row's first token to its last; None without an attention mask.
        """
        mask = self.inputs(batch).get("attention_mask")
        if mask is None or mask.ndim != 2:
            return None
        return _from_the_first(mask != 0) & _to_the_last(mask != 0)

    def scored(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Where the scores of each row stand, for tasks that have scores for each token.

        Args:
            batch: What a collator made.

        Returns:
            Shape (B, T), True at the scores to keep; None where all are.
        """
        if self.task == "seq2seq_lm":
            own = self._targets(batch)
        else:
            own = self.tokens(batch) if self.task in TOKEN_TASKS else None
        if not self.heard_only or (self.task == "seq2seq_lm" and batch.get("labels") is None):
            return own
        heard = view_of(self.task, self.config, pooling="mean", hide_padding=True).read(batch).heard
        return heard if own is None else heard & own

    def _targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Where the decoder's inputs stand; what is to the left of them is part of what it reads."""
        inputs = self.inputs(batch)
        ids, mask = inputs.get("decoder_input_ids"), inputs.get("decoder_attention_mask")
        if ids is None:
            return None
        labels = batch.get("labels") if self.task == "seq2seq_lm" else None
        if isinstance(labels, Tensor) and labels.shape == ids.shape:
            # Shifted labels end in the last label of a shorter row where those of the longest row have lost it.
            return _to_the_last(labels != IGNORED)
        if mask is not None:
            return _to_the_last(mask != 0)
        real = ids != self.config.pad_token_id
        real[:, 0] = True  # some decoders begin with the padding token
        return _to_the_last(real)


def _canonical(tensor: Tensor) -> NDArray[Any]:
    """One width for all integers and one for all floats: a collator's choice of it is not the row's."""
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.to(torch.int64).numpy()


def _digest(parts: list[tuple[str, NDArray[Any], NDArray[np.bool_] | None]], row: int) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for name, array, own in parts:
        value = array[row] if own is None else array[row, own[row]]
        digest.update(f"{name} {value.dtype.str} {value.shape};".encode())
        digest.update(value.tobytes())
    return digest.digest()


def _from_the_first(marks: Tensor) -> Tensor:
    return marks.long().cumsum(1) > 0


def _to_the_last(marks: Tensor) -> Tensor:
    return marks.long().flip(1).cumsum(1).flip(1) > 0
