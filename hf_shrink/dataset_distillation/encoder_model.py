"""A model that gives each row a vector: loaded, and asked batch by batch."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.models import load_model, load_processing_class
from hf_shrink.inputs.pooling import POOLINGS, pool
from hf_shrink.inputs.positions import max_positions
from hf_shrink.inputs.rows import default_collator, padding_right, tokenize_rows
from hf_shrink.inputs.sentence_encoders import SentenceEncoder, read_sentence_encoder
from hf_shrink.inputs.tasks import inner_model, model_config
from hf_shrink.versions import base_model

TASK = "feature_extraction"
CHECKED = 10_000  # tokenised rows looked at in one go


@dataclass(frozen=True)
class Encoder:
    """A model without its head, and how its vectors are made.

    Args:
        model: Gives `last_hidden_state`.
        processing_class: What prepares the rows; None for rows that need no padding.
        pooling: Name in `POOLINGS`.
        max_length: Tokens a text is cut to; None takes the tokenizer's limit.
        device: Where the model computes.
    """

    model: nn.Module
    processing_class: Any
    pooling: str
    max_length: int | None
    device: torch.device

    def prepare(self, rows: Dataset) -> Dataset:
        """Make rows into what the model reads.

        Args:
            rows: Raw or tokenised ones.

        Returns:
            The model's inputs; images are prepared at the moment a row is read.
        """
        rows = tokenize_rows(rows, self.processing_class, task=TASK, max_length=self.max_length)
        if rows.format["type"] is not None:
            return rows
        parameters = set(inspect.signature(self.model.forward).parameters)
        rows = rows.select_columns([column for column in rows.column_names if column in parameters])
        if "input_ids" in rows.column_names:
            self._check_tokens(rows.select_columns("input_ids"))
        return rows

    def collator(self, rows: Dataset) -> Callable[[list[dict[str, Any]]], Mapping[str, Any]]:
        """Make batches of prepared rows; tokens are padded on the right, or a decoder's positions would move.

        Args:
            rows: What `prepare` gave.

        Returns:
            A collator.
        """
        texts = "input_ids" in rows.column_names
        return default_collator(padding_right(self.processing_class) if texts else None, TASK)

    def _check_tokens(self, rows: Dataset) -> None:
        """Refuse rows that were tokenised for another model, which would end in an index error or in nonsense."""
        model: Any = self.model
        words, positions = model.get_input_embeddings().num_embeddings, max_positions(model.config)
        for start in range(0, len(rows), CHECKED):
            ids = rows[start : start + CHECKED]["input_ids"]
            for row, tokens in enumerate(ids, start):
                if not tokens:
                    raise ShrinkError(f"`dataset` must have a token in every row, but row {row} has none. Drop it.")
                if max(tokens) >= words:
                    raise ShrinkError(
                        f"`encoder` must know the tokens of `dataset`, but it has {words:,} and row {row} holds "
                        f"{max(tokens)}. Name the raw text with `text_column`, or give the model that the rows were "
                        "tokenised for."
                    )
                if positions is not None and len(tokens) > positions:
                    raise ShrinkError(
                        f"`encoder` must have a position for every token, but it has {positions:,} and row {row} has "
                        f"{len(tokens):,} tokens. Cut the rows when you tokenise them."
                    )

    def ready(self) -> AbstractContextManager[None]:
        """Evaluation mode, for as long as it is asked; afterwards each module is in the mode that it came in."""
        return evaluation_mode([self.model])

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Encode one batch.

        Args:
            batch: What the collator made.

        Returns:
            Shape (B, D), float32 on the CPU.

        Raises:
            ShrinkError: If the model has no hidden states to make vectors of.
        """
        outputs = self.model(**{name: value.to(self.device) for name, value in batch.items()})
        states = outputs.get("last_hidden_state")
        if states is None:
            raise ShrinkError(
                f"`encoder` must give hidden states, but {type(self.model).__name__} gives {list(outputs)}. Give the "
                "part of it that reads these rows, such as its text or its vision model."
            )
        states = states.float()
        if states.ndim == 4:  # the feature maps of a convolution, (B, D, height, width)
            states = states.flatten(2).transpose(1, 2)
        mask = batch.get("attention_mask")
        if mask is not None and mask.shape != states.shape[:2]:
            mask = None  # counts samples of a sound, of which the model has made fewer states
        return pool(states, None if mask is None else mask.to(self.device), self.pooling).cpu()


def load_encoder(
    encoder: Any,
    rows: Dataset,
    device: torch.device,
    *,
    processing_class: Any = None,
    pooling: str | None = None,
    max_length: int | None = None,
) -> Encoder:
    """Load a model that makes vectors.

    Args:
        encoder: A transformers model, its folder or Hub id, or a folder or id of sentence-transformers.
        rows: What it is to read.
        device: Where it computes.
        processing_class: What prepares the rows; loaded from where the encoder was if None and needed.
        pooling: Name in `POOLINGS`; None takes what sentence-transformers notes, else "mean".
        max_length: Tokens to cut a text to; None takes what sentence-transformers notes, else the model's limit.

    Returns:
        The encoder.

    Raises:
        ShrinkError: If it is no transformers model, or the pooling is unknown.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ShrinkError(f"`pooling` must be one of {sorted(POOLINGS)}, got {pooling!r}. Leave it out for the usual.")
    named = isinstance(encoder, (str, Path))
    settings = read_sentence_encoder(encoder) if named else SentenceEncoder("")
    model = load_model(settings.source, task=TASK) if named else encoder
    if not isinstance(model, nn.Module) or model_config(model) is None:
        raise ShrinkError(
            f"`encoder` must be a transformers model, a folder or a Hub id, got {type(model).__name__}. Encode the "
            "rows with it yourself, and give the vectors as `embeddings`."
        )
    if processing_class is None and _needs_processing(rows):
        processing_class = load_processing_class(settings.source if named else model)
    headless = _headless(model).to(device)
    limit = _limit(max_length, settings.max_length, headless, processing_class)
    return Encoder(headless, processing_class, pooling or settings.pooling or "mean", limit, device)


def _needs_processing(rows: Dataset) -> bool:
    """Whether rows are raw, or of unequal length and padded by their tokenizer."""
    there = set(TOKENIZED) & set(rows.column_names)
    return not there or "input_ids" in there


def _limit(given: int | None, noted: int | None, model: Any, processing_class: Any) -> int | None:
    positions = max_positions(model.config)
    if given is not None and positions is not None and given > positions:
        raise ShrinkError(
            f"`max_length` must be at most {positions} (the encoder's positions), got {given}. Leave it out for that."
        )
    if given is not None or not isinstance(processing_class, PreTrainedTokenizerBase):
        return given
    # A tokenizer that was saved without its model may know no limit.
    return min(limit for limit in (noted, positions, processing_class.model_max_length) if limit is not None)


def _headless(model: Any) -> nn.Module:
    model = inner_model(model)
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    return base_model(model)
