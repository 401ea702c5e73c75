"""A teacher's answers on disk, in place of the teacher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from hf_shrink.distillation.cache_columns import (
    KEY_COLUMN,
    LIKELIEST_COLUMN,
    SCORES_COLUMN,
    hidden_column,
    open_parts,
    unpack,
)
from hf_shrink.distillation.cache_push import push_cache
from hf_shrink.distillation.cache_settings import CacheSettings
from hf_shrink.distillation.key_index import KeyIndex
from hf_shrink.distillation.row_keys import RowReader
from hf_shrink.distillation.teacher import Taught
from hf_shrink.distillation.token_packing import Likeliest, TokenPacking, packing_of
from hf_shrink.distillation.views import HIDDEN_SPAN
from hf_shrink.errors import ShrinkError
from hf_shrink.hub.snapshot import download
from hf_shrink.inputs.fingerprints import tokenizer_fingerprint
from hf_shrink.inputs.remote import LOAD_ERRORS, explain_hub_error, looks_like_path

# What `collate` adds to a batch; ids and tail where the scores are those of the likeliest tokens alone.
SCORES, IDS, TAIL, HIDDEN = "teacher_scores", "teacher_ids", "teacher_tail", "teacher_hidden_"


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """What a teacher said about the rows of a dataset, made by `cache_teacher`.

    `DistillationTrainer(teacher_model=cache)` trains without the teacher. A row is found by what the teacher read of
    it, so that order, batches and padding may change; another tokenizer, truncation or random collator makes other
    rows, which are not found.

    Args:
        path: The folder.
        settings: What it was made with.
        config: The teacher's config.
        rows: The answers, memory-mapped.
        keys: Finds the rows.
        index: Order of the teacher's classes as the student has them, shape (C,), or None.
        layers: Layers whose hidden states are given, counted from 0, in this order.
    """

    path: Path
    settings: CacheSettings
    config: PretrainedConfig
    rows: Dataset = field(repr=False)
    keys: KeyIndex = field(repr=False)
    index: Tensor | None = None
    layers: tuple[int, ...] = ()

    @classmethod
    def load(
        cls, path_or_repo: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "TeacherCache":
        """Open a cache; its rows stay on disk until they are asked for.

        Args:
            path_or_repo: The folder that `cache_teacher` wrote, or the Hub id of one that was pushed.
            revision: Branch, tag or commit of the Hub's repository.
            token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.

        Returns:
            The cache.

        Raises:
            ShrinkError: If there is none, or it cannot be read.
        """
        if looks_like_path(path_or_repo):
            path = Path(path_or_repo).expanduser()
        else:
            path = download(str(path_or_repo), revision=revision, repo_type="dataset", token=token)
        settings = CacheSettings.read(path)
        rows = open_parts(path)
        if rows is None:
            raise ShrinkError(
                f"`path_or_repo` must hold finished rows, but {path} has none. Run cache_teacher() with it again."
            )
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        except LOAD_ERRORS as error:
            raise ShrinkError(explain_hub_error(error, "path_or_repo", str(path), "config")) from error
        keys = KeyIndex.of(rows.data.column(KEY_COLUMN).to_pylist())
        return cls(path, settings, config, rows, keys, layers=settings.hidden_layers)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
    ) -> str:
        """Upload the cache as a dataset with its card, in one commit; `TeacherCache.load(repo_id)` brings it back.

        Args:
            repo_id: Where to, as user/name; it is made if it is not there.
            private: Who may see a repository made now; None leaves it to the Hub.
            token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.
            revision: Branch; None is main.
            create_pr: Open a pull request.
            commit_message: First line of the commit.

        Returns:
            Address of the commit.
        """
        return push_cache(
            self.path,
            self.settings,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def name(self) -> str:
        """What a card may call the teacher."""
        return self.settings.teacher

    @property
    def parameters(self) -> frozenset[str]:
        """Names that the teacher's `forward` takes."""
        return frozenset(self.settings.parameters)

    @property
    def reader(self) -> RowReader:
        """What the teacher reads of a batch."""
        heard_only = self.settings.top_k is not None
        return RowReader(self.settings.task, self.parameters, self.config, heard_only=heard_only)

    @property
    def packing(self) -> TokenPacking | None:
        """How the likeliest tokens are kept; None where all scores are."""
        return packing_of(self.settings.top_k, self.settings.task, self.config)

    def place(self, accelerator: Accelerator) -> None:
        """Nothing to do: there is no model.

        Args:
            accelerator: Unused; part of the signature that a teacher has.
        """

    def fitted(
        self,
        *,
        task: str,
        index: Tensor | None = None,
        layers: Sequence[int] = (),
        pooling: str | None = None,
        embedding_pooling: str | None = None,
        processing_class: Any = None,
        temperature: float = 1.0,
    ) -> "TeacherCache":
        """The same cache for one student.

        Args:
            task: The student's.
            index: Order of the teacher's classes as the student has them, shape (C,), or None.
            layers: Layers whose hidden states are wanted, counted from 0.
            pooling: How these are to become one vector a row, or None.
            embedding_pooling: How the student makes embeddings; None for other tasks.
            processing_class: What makes the student's inputs, where it is known.
            temperature: That the scores are softened with.

        Returns:
            The cache.

        Raises:
            ShrinkError: If it holds something else.
        """
        own = self.settings
        if self.packing is not None:
            self.packing.check_temperature(temperature)
        if task != own.task:
            raise ShrinkError(
                f"`teacher_model` (the cache) must be of a model for {task} as the student is, got one for {own.task}."
                " Cache a teacher of this task."
            )
        if missing := sorted(set(layers) - set(own.hidden_layers)):
            raise ShrinkError(
                f"`layer_map` must name layers whose hidden states the cache holds ({list(own.hidden_layers)}), got "
                f"{missing}. Cache the teacher anew with hidden_layers={sorted(set(layers))}."
            )
        pairs = [(embedding_pooling, own.embedding_pooling), *([(pooling, own.pooling)] if layers else [])]
        if different := [pair for pair in pairs if pair[0] != pair[1]]:
            raise ShrinkError(
                f"`pooling` must be {different[0][1]!r}, as the cache was made, got {different[0][0]!r}. Cache the "
                "teacher anew to change it."
            )
        vocabulary = tokenizer_fingerprint(processing_class)
        if None not in (vocabulary, own.tokenizer) and vocabulary != own.tokenizer:
            raise ShrinkError(
                "`teacher_model` (the cache) must be made with the tokenizer of `processing_class`, but the "
                "vocabularies differ. Cache the teacher with this tokenizer."
            )
        return replace(self, index=index, layers=tuple(layers))

    def collate(self, collator: Callable[[list[Any]], Mapping[str, Any]]) -> "CachedCollator":
        """Let a collator add the teacher's answers to its batches, in the data loader's workers.

        Args:
            collator: Makes a padded batch of a list of rows.

        Returns:
            A collator.
        """
        return CachedCollator(self, collator)

    def answer(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Look a batch up.

        Args:
            batch: What a collator made.

        Returns:
            "teacher_scores" and "teacher_hidden_0", …, in half precision and padded as the batch is; nothing if one
            row is not there. Where the likeliest tokens alone are kept, "teacher_ids" and "teacher_scores" of shape
            (B, T, k) and "teacher_tail" of shape (B, T): no tensor is as wide as the vocabulary.
        """
        found = self.keys.find(self.reader.keys(batch))
        if (found < 0).any():
            return {}
        rows = self.rows[found.tolist()]
        tensors = self._scores(rows, self.reader.scored(batch))
        for place, layer in enumerate(self.layers):
            tensors[f"{HIDDEN}{place}"] = unpack(rows[hidden_column(layer)], self.reader.tokens(batch), 0.0)
        return tensors

    def _scores(self, rows: pa.Table, own: Tensor | None) -> dict[str, Tensor]:
        if self.packing is not None:
            kept = self.packing.unpack(unpack(rows[LIKELIEST_COLUMN], own, 0))
            return {IDS: kept.ids, SCORES: kept.log_probs, TAIL: kept.tail}
        spans = self.settings.task == "question_answering"
        scores = unpack(rows[SCORES_COLUMN], own, HIDDEN_SPAN if spans else 0.0)
        return {SCORES: scores.transpose(1, 2).contiguous() if spans else scores}  # (B, 2, T)

    def __call__(self, inputs: Mapping[str, Any], *, hidden: bool = False) -> Taught | None:
        """What the teacher said about a batch of `collate`.

        Args:
            inputs: The prepared batch.
            hidden: Whether the states of its layers are wanted too.

        Returns:
            What the student is to match, over all classes; None where a row of the batch is not in the cache.
        """
        if SCORES not in inputs:
            return None
        scores = inputs[SCORES].float()
        if self.packing is not None:
            scores = Likeliest(inputs[IDS], scores, inputs[TAIL].float()).dense(self.packing.vocabulary)
        if self.index is not None:
            scores = scores[..., self.index.to(scores.device)]
        states = [inputs[f"{HIDDEN}{place}"].float() for place in range(len(self.layers))] if hidden else []
        return Taught(scores, tuple(states))

    def not_found(self, inputs: Mapping[str, Any]) -> ShrinkError:
        """The error for a training batch that is not in the cache.

        Args:
            inputs: The batch.

        Returns:
            What to raise.
        """
        found, own = self.keys.find(self.reader.keys(inputs)), self.settings
        names, missing = set(self.reader.inputs(inputs)), int((found < 0).sum())
        labels = "labels at other tokens, " if self.reader.heard_only else ""
        reason = f"{labels}other truncation, another tokenizer, a collator that masks or augments, or new rows"
        if names != set(own.inputs):
            reason = f"it read {sorted(own.inputs)} of each row, and this batch holds {sorted(names)}"
        return ShrinkError(
            f"`teacher_model` (the cache) must hold every training row, but {missing} of the {len(found)} rows of a "
            f"batch are not among the {len(self):,} that {own.teacher} was cached with (max_length={own.max_length}): "
            f"{reason}. Give the same rows and collator to cache_teacher(), which adds to a cache what it lacks."
        )


@dataclass(frozen=True)
class CachedCollator:
    """A collator whose batches hold the teacher's answers.

    Args:
        cache: The answers.
        collator: Makes a padded batch of a list of rows.
    """

    cache: TeacherCache
    collator: Callable[[list[Any]], Mapping[str, Any]]

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: As the dataset gives them.

        Returns:
            What the collator makes, and the teacher's answers if all rows have one.
        """
        batch = dict(self.collator(rows))
        return {**batch, **self.cache.answer(batch)}
