"""Push a model or a dataset: everything that belongs together in one commit, the card last."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from torch import nn
from transformers.utils import PushToHubMixin

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.report import ShrinkReport
from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.hub.card import model_card
from hf_shrink.hub.commit import Operation, commit, open_destination
from hf_shrink.hub.dataset_card import SPLIT, DatasetFiles, read_repository, render_dataset_card
from hf_shrink.hub.files import CARD, REPORT, files_to_push, replaced_weights
from hf_shrink.hub.licenses import license_of
from hf_shrink.hub.parquet import write_shards
from hf_shrink.hub.rendering import is_ours
from hf_shrink.inputs.graph_model import GraphModel
from hf_shrink.inputs.saving import save_model


def push_to_hub(
    path_or_model: Any,
    repo_id: str,
    *,
    report: ShrinkReport | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    processing_class: Any = None,
) -> str:
    """Upload a model with its card and its report, in one commit.

    Optimizer states, checkpoints, `training_args.bin` and every other pickle stay here. A commit that the Hub or the
    network failed is tried again, and never made twice. Safetensors that the repository holds and the model no longer
    has are deleted in the same commit: `from_pretrained` would load an old `model.safetensors` in place of new shards.

    Args:
        path_or_model: A folder that holds a model, or a transformers or PEFT model.
        repo_id: Where to, as user/name; it is made if it is not there.
        report: What was measured; the card is made from it, for the entry whose size on disk is the model's, else for
            the last. Without it the folder's `shrink_report.json` serves, unless the folder's README.md is none of
            hf_shrink's: that one goes up as it is.
        private: Who may see a repository made now; None leaves it to the Hub.
        token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.
        revision: Branch; None is main.
        create_pr: Open a pull request.
        commit_message: First line of the commit.
        processing_class: Tokenizer or processor to go beside the model.

    Returns:
        Address of the commit.

    Raises:
        ShrinkError: If there are no weights, or only pickles; if `report` is none; if the Hub refuses, or cannot be
            reached.
    """
    if report is not None and not isinstance(report, ShrinkReport):
        raise ShrinkError(f"`report` must be a ShrinkReport, got {type(report).__name__}. Make one with compare().")
    if processing_class is not None and not isinstance(processing_class, PushToHubMixin):
        raise ShrinkError(
            f"`processing_class` must be a tokenizer or processor, got {type(processing_class).__name__}. "
            "Load it with AutoTokenizer.from_pretrained()."
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = _model_folder(path_or_model, Path(scratch) / "model")
        files = files_to_push(folder)
        if processing_class is not None:
            processing_class.save_pretrained(Path(scratch) / "processing")
            files |= _all_files(Path(scratch) / "processing")
        card = files.pop(CARD, None)
        if report is None and REPORT in files and (card is None or is_ours(card.read_text(encoding="utf-8"))):
            report = ShrinkReport.from_json(files[REPORT])
        destination = open_destination(repo_id, private=private, token=token, revision=revision, create_pr=create_pr)
        if report is not None:
            files[REPORT] = report.to_json(Path(scratch) / REPORT)
            text = model_card(report, entry=_entry(report, folder), repo_id=destination.repo_id)
            card = Path(scratch) / CARD
            card.write_text(text, encoding="utf-8")
        if card is not None:
            files[CARD] = card  # last: no other writer of the same commit can put its own card over it

        def operations(parent: str) -> list[Operation]:
            old = replaced_weights(files, destination.files(parent))
            return [*(CommitOperationDelete(path) for path in old), *_additions(files)]

        return commit(destination, operations, commit_message or "Upload model")


def push_dataset_to_hub(
    dataset: Dataset,
    repo_id: str,
    *,
    split: str = "train",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    source: str | None = None,
    license: str | Sequence[str] | None = None,
) -> str:
    """Upload a dataset as parquet with its card, in one commit; `load_dataset(repo_id)` gives equal rows and features.

    Other splits and configurations that the repository holds stay as they are; the same split is replaced. So does a
    card that somebody else wrote: only its metadata is brought up to date.

    Args:
        dataset: The rows of one split.
        repo_id: Where to, as user/name; it is made if it is not there.
        split: Name of the split.
        private: Who may see a repository made now; None leaves it to the Hub.
        token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.
        revision: Branch; None is main.
        commit_message: First line of the commit.
        source: Hub id or name of the dataset that this one was made from.
        license: The Hub's identifier of the licence. Of several, such as those of the rows and of the teacher that
            made their soft labels, the card bears the most restrictive. None takes the rows' own, if they tell it.

    Returns:
        Address of the commit.

    Raises:
        ShrinkError: If the rows are no `Dataset`, if the split's name is not a word, if the repository holds splits of
            other features, if the Hub refuses or cannot be reached.
    """
    if not isinstance(dataset, Dataset):
        raise ShrinkError(f"`dataset` must be a Dataset, got {type(dataset).__name__}. Push each split by itself.")
    if not SPLIT.fullmatch(split):
        raise ShrinkError(f"`split` must be a word such as 'train', got {split!r}. Use letters, digits and _.")
    with tempfile.TemporaryDirectory() as scratch:
        shards = write_shards(dataset, Path(scratch), split)
        new = DatasetFiles(dataset, split, shards, source, license_of(dataset, license))
        destination = open_destination(repo_id, repo_type="dataset", private=private, token=token, revision=revision)

        def operations(parent: str) -> list[Operation]:
            there = read_repository(destination, parent)
            card = render_dataset_card(new, there, destination.repo_id)
            deletions = [CommitOperationDelete(path) for path in there.files_of(split) if path not in shards]
            return [*deletions, *_additions(shards), CommitOperationAdd(CARD, card.encode())]

        return commit(destination, operations, commit_message or "Upload dataset")


def _model_folder(path_or_model: Any, scratch: Path) -> Path:
    if isinstance(path_or_model, GraphModel):
        return path_or_model.path
    if isinstance(path_or_model, (str, Path)):
        folder = Path(path_or_model).expanduser()
        if not folder.is_dir():
            raise ShrinkError(
                f"`path_or_model` must be a folder or a model, but there is no folder {path_or_model}. Check the path."
            )
        return folder
    if isinstance(path_or_model, nn.Module) and isinstance(path_or_model, PushToHubMixin):
        save_model(path_or_model, scratch, "path_or_model")
        return scratch
    raise ShrinkError(
        f"`path_or_model` must be a folder or a transformers model, got {type(path_or_model).__name__}. "
        "Save it to a folder first."
    )


def _entry(report: ShrinkReport, folder: Path) -> int:
    """Which model of a report lies in the folder: the one of its size, where that tells; else the last made."""
    sizes = [entry.size_bytes for entry in report.entries]
    try:
        size = size_on_disk(folder)
    except ShrinkError:  # weights in a subfolder only
        return -1
    return sizes.index(size) if sizes.count(size) == 1 else -1


def _all_files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _additions(files: dict[str, Path]) -> list[Operation]:
    return [CommitOperationAdd(name, path) for name, path in files.items()]
