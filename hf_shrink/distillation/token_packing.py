"""The likeliest tokens of a softmax over a vocabulary, in a few bytes."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError

VOCABULARY_TASKS = ("masked_lm", "causal_lm", "seq2seq_lm")
SPAN = 30.0  # nats below the likeliest token; what lies lower is kept as if it lay there
CODES = 255
CHUNK = 2**22  # values of whole softmaxes that are in memory at once, in single precision
SMALLEST, LARGEST = 2.0**-24, torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Likeliest:
    """What is kept of a softmax over V tokens.

    Args:
        ids: The k likeliest, shape (..., k).
        log_probs: Their log-probabilities, same shape, fp32.
        tail: Logarithm of the mass of all others, shape (...), fp32.
    """

    ids: Tensor
    log_probs: Tensor
    tail: Tensor

    def dense(self, vocabulary: int) -> Tensor:
        """Spread the tail evenly over the tokens that were not kept.

        Args:
            vocabulary: V.

        Returns:
            Log-probabilities of shape (..., V), fp32; their probabilities add up to 1.
        """
        rest = self.tail - math.log(max(vocabulary - self.ids.shape[-1], 1))
        scores = rest.unsqueeze(-1).repeat(*(1 for _ in rest.shape), vocabulary)
        return scores.scatter_(-1, self.ids.long(), self.log_probs)


@dataclass(frozen=True)
class TokenPacking:
    """Bytes of one token: k ids of ceil(log2 V) bits, k codes of 8 bits, and two numbers in half precision.

    A code says by how many steps a log-probability lies below that of the likeliest token; the two numbers are the
    step and the logarithm of the tail's mass. The kept ones are scaled to the mass that the tail leaves, so that all
    add up to 1. A log-probability comes back in the right order and off by at most one step, 1/255 of the distance
    from the likeliest token to the last kept one (0.04 nats where that is 10), and 0.001 nats. Further than `SPAN`
    nats below the likeliest it comes back as if it lay there.

    Args:
        k: Tokens that are kept.
        vocabulary: V, tokens that the teacher scores.
    """

    k: int
    vocabulary: int

    @property
    def bits(self) -> int:
        """Of one id."""
        return (self.vocabulary - 1).bit_length()

    @property
    def width(self) -> int:
        """Bytes of one token: 56 for k = 16 of 152,000."""
        return self._id_bytes + self.k + 4

    @property
    def _id_bytes(self) -> int:
        return -(-self.k * self.bits // 8)

    @property
    def _powers(self) -> NDArray[np.int32]:
        return 1 << np.arange(self.bits, dtype=np.int32)

    def check_temperature(self, temperature: float) -> None:
        """Refuse to soften an even tail.

        The gradient of a student that is near its teacher then points elsewhere: with two of the five layers of
        stories260K, on stories of its own, 16 of its 512 tokens give a cosine to the gradient of all of 0.99 at
        temperature 1 and of -0.4 at 2.

        Args:
            temperature: Of the loss.

        Raises:
            ShrinkError: If it is not 1 and there is a tail.
        """
        if temperature != 1 and self.k < self.vocabulary:
            raise ShrinkError(
                f"`temperature` must be 1 for a teacher's cache with top_k, got {temperature}: softened, the tokens "
                "that were not kept outweigh those that were, and the student learns noise. Set temperature=1.0, or "
                "cache the teacher without top_k."
            )

    def pack(self, scores: Tensor) -> Tensor:
        """Keep the likeliest tokens.

        Args:
            scores: The teacher's logits, shape (N, V).

        Returns:
            Bytes of shape (N, width), on the CPU.

        Raises:
            ShrinkError: If there is not one score a token of the vocabulary, or they are not finite.
        """
        if scores.shape[-1] != self.vocabulary:
            raise ShrinkError(
                f"`teacher` must score the {self.vocabulary} tokens of its config's `vocab_size` to be cached with "
                f"top_k, got {scores.shape[-1]} scores. Correct its config, or cache it without top_k."
            )
        return torch.cat([self._pack(part) for part in scores.split(max(1, CHUNK // self.vocabulary))])

    def unpack(self, records: Tensor) -> Likeliest:
        """Read what `pack` wrote; bytes that are all 0, as padding has them, give finite values too.

        Args:
            records: Bytes of shape (..., width), on the CPU.

        Returns:
            The kept tokens.
        """
        packed = records[..., : self._id_bytes].numpy()
        flags = np.unpackbits(packed, axis=-1, count=self.k * self.bits, bitorder="little")
        ids = flags.reshape(*packed.shape[:-1], self.k, self.bits) @ self._powers  # (..., k)
        codes = records[..., self._id_bytes : -4].float()
        numbers = records[..., -4:].clone(memory_format=torch.contiguous_format).view(torch.float16).float()
        step, tail = numbers[..., :1], numbers[..., 1].clamp(max=-SMALLEST)
        below = -codes * step
        kept = torch.log(-torch.expm1(tail))  # of 1 - exp(tail), which rounds to 0 if computed in this order
        log_probs = below - below.logsumexp(-1, keepdim=True) + kept.unsqueeze(-1)
        return Likeliest(torch.from_numpy(ids), log_probs, tail)

    def _pack(self, scores: Tensor) -> Tensor:
        log_probs = F.log_softmax(scores.float(), dim=-1)
        top, ids = log_probs.topk(self.k, dim=-1)  # (N, k)
        if top.isnan().any():
            raise ShrinkError("`teacher` must give finite scores to be cached, got NaN. Try float32 or bfloat16.")
        tail = log_probs.scatter_(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)  # (N, 1)
        below = (top[:, :1] - top).clamp(max=SPAN)
        # Rounded up, so that the last code is 255 at most; 0 would divide by 0 where all are equally likely.
        step = (below[:, -1:] / CODES * (1 + 2**-10) + SMALLEST).half()
        codes = (below / step.float()).round().byte()
        numbers = torch.cat([step, tail.clamp(-LARGEST, -SMALLEST).half()], dim=-1).view(torch.uint8)  # (N, 4)
        return torch.cat([self._pack_ids(ids), codes.cpu(), numbers.cpu()], dim=-1)

    def _pack_ids(self, ids: Tensor) -> Tensor:
        flags = (ids.int().cpu().numpy()[..., None] & self._powers) != 0  # (N, k, bits)
        return torch.from_numpy(np.packbits(flags.reshape(len(ids), self.k * self.bits), axis=-1, bitorder="little"))


def packing_of(top_k: int | None, task: str, config: PretrainedConfig) -> TokenPacking | None:
    """How the answers about a token are packed.

    Args:
        top_k: Tokens to keep; None keeps the scores of all.
        task: Name in `TASKS`.
        config: The teacher's, with `vocab_size`.

    Returns:
        The packing; None where all scores are kept.

    Raises:
        ShrinkError: If the task has no scores over a vocabulary, or `top_k` does not lie in it.
    """
    if top_k is None:
        return None
    if task not in VOCABULARY_TASKS:
        raise ShrinkError(
            f"`top_k` must be None for {task}, got {top_k}: only scores over a vocabulary "
            f"({', '.join(VOCABULARY_TASKS)}) are cut to the likeliest. Leave it out."
        )
    vocabulary = config.get_text_config().vocab_size
    if type(top_k) is not int or not 1 <= top_k <= vocabulary:
        raise ShrinkError(
            f"`top_k` must be a whole number in [1, {vocabulary}] (the teacher's vocabulary), got {top_k!r}. 16 is "
            "enough for most language models."
        )
    return TokenPacking(top_k, vocabulary)
