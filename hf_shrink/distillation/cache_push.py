"""A teacher's cache on the Hub: a dataset repository whose card says what it holds and how to train from it."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from hf_shrink.distillation.cache_columns import FOLDER, SPLIT, bytes_a_token, open_parts, part_files
from hf_shrink.distillation.cache_settings import FILE, CacheSettings
from hf_shrink.errors import ShrinkError
from hf_shrink.hub.commit import Operation, commit, open_destination
from hf_shrink.hub.dataset_card import DatasetFiles, read_repository, render_dataset_card
from hf_shrink.hub.files import CARD

CONFIG = "config.json"
SCORES = {  # what stands in a row, by task; the others have one score a class
    "regression": "the values",
    "token_classification": "the logits of each token",
    "question_answering": "for each token the logits of an answer's start and end",
    "masked_lm": "the logits of each token",
    "causal_lm": "the logits of each token",
    "seq2seq_lm": "the logits of each token of the target",
    "feature_extraction": "the embedding",
}


def push_cache(
    folder: Path,
    settings: CacheSettings,
    repo_id: str,
    *,
    private: bool | None,
    token: str | None,
    revision: str | None,
    create_pr: bool,
    commit_message: str | None,
) -> str:
    """Upload a cache in one commit; parts of an earlier one are deleted in it.

    Args:
        folder: The cache.
        settings: What it was made with.
        repo_id: Where to, as user/name; it is made if it is not there.
        private: Who may see a repository made now; None leaves it to the Hub.
        token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.
        revision: Branch; None is main.
        create_pr: Open a pull request.
        commit_message: First line of the commit.

    Returns:
        Address of the commit.

    Raises:
        ShrinkError: If the folder holds no finished rows any more.
    """
    rows = open_parts(folder)
    if rows is None:
        raise ShrinkError(f"`path_or_repo` must hold finished rows, but {folder} has none. Run cache_teacher() again.")
    rows = rows.with_format(None)
    parts = {f"{FOLDER}/{part.name}": part for part in part_files(folder)}
    files = {name: folder / name for name in (FILE, CONFIG)} | parts
    destination = open_destination(
        repo_id, repo_type="dataset", private=private, token=token, revision=revision, create_pr=create_pr
    )
    rows.info.description = _describe(settings, bytes_a_token(rows), destination.repo_id)
    new = DatasetFiles(rows, SPLIT, parts, source=None, license=None)

    def operations(parent: str) -> list[Operation]:
        there = read_repository(destination, parent)
        card = render_dataset_card(new, there, destination.repo_id)
        old = [CommitOperationDelete(path) for path in there.files_of(SPLIT) if path not in parts]
        additions = [CommitOperationAdd(name, path) for name, path in files.items()]
        return [*old, *additions, CommitOperationAdd(CARD, card.encode())]

    return commit(destination, operations, commit_message or "Upload a teacher's cache")


def _describe(settings: CacheSettings, token_bytes: int | None, repo_id: str) -> str:
    at = f" at commit {settings.commit}" if settings.commit else ""
    layers = ", ".join(map(str, settings.hidden_layers))
    pooled = f" ({settings.pooling} of the tokens)" if settings.pooling else " of each token"
    hidden = (
        f" Columns `hidden_…` hold the hidden states{pooled} of layers {layers}, counted from 0." if layers else ""
    )
    cut = f"; rows were cut to {settings.max_length} tokens" if settings.max_length is not None else ""
    args = "" if settings.top_k is None else 'args = DistillationTrainingArguments("student", temperature=1.0)\n'
    imports = f"DistillationTrainer, {'DistillationTrainingArguments, ' if args else ''}TeacherCache"
    return f"""
What the teacher `{settings.teacher}`{at} said about the rows of a dataset, for {settings.task}. \
{_scores(settings, token_bytes)}{hidden} The rows themselves are not here: `key` is a hash of what the teacher read \
of one ({", ".join(settings.inputs)}{cut}).

A student trains on it without the teacher, on rows that are prepared in the same way:

```python
from hf_shrink import {imports}

cache = TeacherCache.load("{repo_id}")
{args}trainer = DistillationTrainer(
    model=student, teacher_model=cache, {"args=args, " if args else ""}train_dataset=rows, processing_class=tokenizer
)
trainer.train()
```""".strip()


def _scores(settings: CacheSettings, token_bytes: int | None) -> str:
    cost = "" if token_bytes is None else f" ({token_bytes:,} bytes a token)"
    if settings.top_k is None:
        held = SCORES.get(settings.task, "the logits of the classes")
        return f"`scores` holds {held}, without padding and in half precision{cost}."
    return (
        f"`likeliest` holds the {settings.top_k} likeliest entries of the teacher's softmax and the mass of all "
        f"others{cost}, for the tokens at which a student hears the teacher. The labels are therefore part of a row: "
        "give it the same ones. A student hears the others as equally likely, which overrates them the more the "
        "higher the temperature: train at 1."
    )
