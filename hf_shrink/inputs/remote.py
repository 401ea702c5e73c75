"""The Hub, as far as inputs need it: which files a repository holds, and one clear error for each way to fail."""

from collections.abc import Iterator
from pathlib import Path

from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError

from hf_shrink.errors import ShrinkError
from hf_shrink.versions import network_errors

REMOTE_ERRORS: tuple[type[Exception], ...] = (HfHubHTTPError, *network_errors())
REFUSALS: tuple[type[Exception], ...] = (HFValidationError, *REMOTE_ERRORS)
TIMEOUT = 10.0  # seconds
NOT_FOUND = (
    "there is no such folder here and no such repository on the Hub that you may read. "
    "Check the spelling; if it is private, log in with `hf auth login`."
)
LOAD_ERRORS: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, SafetensorError, *network_errors())


def looks_like_path(source: str | Path) -> bool:
    """Whether a name can only mean a place on this machine.

    Args:
        source: What the user named.

    Returns:
        True where something lies there, or where no repository can bear the name.
    """
    text = str(source)
    return (
        isinstance(source, Path)
        or Path(text).expanduser().exists()
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") > 1
    )


def list_hub_files(
    repo_id: str, *, argument: str, revision: str | None = None, token: str | bool | None = None
) -> list[str]:
    """Files of a model repository; without network, those of its cached snapshot.

    Args:
        repo_id: Such as "google-bert/bert-base-uncased".
        argument: What the user calls it; the error names it.
        revision: Branch, tag or commit.
        token: As everywhere in huggingface_hub.

    Returns:
        Paths within the repository.

    Raises:
        ShrinkError: If the Hub refuses, or cannot be reached and the cache lacks the repository.
    """
    try:
        # One request that is not tried again: a laptop without network is to fall back on its cache at once.
        info = HfApi().model_info(repo_id, revision=revision, token=token, timeout=TIMEOUT)
        return [sibling.rfilename for sibling in info.siblings or ()]
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ShrinkError(explain_hub_error(error, argument, repo_id)) from error
    except REMOTE_ERRORS as error:
        try:
            folder = snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns="config.json")
        except LocalEntryNotFoundError:
            raise ShrinkError(explain_hub_error(error, argument, repo_id)) from error
        return [str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()]


def explain_dataset_error(error: Exception, repo_id: str, token: str | bool | None = None) -> str:
    """Like `explain_hub_error`, for `datasets`, which says "doesn't exist or cannot be accessed" for most reasons.

    Args:
        error: What `datasets` raised.
        repo_id: The dataset's id.
        token: As everywhere in huggingface_hub.

    Returns:
        The message of the error to raise.
    """
    reason: Exception = error
    try:
        info = HfApi().dataset_info(repo_id, token=token, timeout=TIMEOUT)
        if info.gated and isinstance(error, DatasetNotFoundError):
            return _message("dataset", "dataset", repo_id, _gated(repo_id, "dataset"))
    except REFUSALS as refusal:
        reason = refusal
    return explain_hub_error(reason, "dataset", repo_id, "dataset")


def explain_hub_error(error: BaseException, argument: str, source: str, kind: str = "model") -> str:
    """Put what a Hub client raised, however deep in the chain of causes, into one sentence and a next step.

    Args:
        error: What `huggingface_hub`, `transformers` or `datasets` raised.
        argument: What the user calls the thing; the message names it.
        source: Folder or id that was asked for.
        kind: "model" or "dataset".

    Returns:
        The message of the error to raise.
    """
    for cause in _chain(error):
        if sentence := _refusal(cause, source, kind) or _failure(cause):
            return _message(argument, kind, source, sentence)
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _message(argument, kind, source, first_line)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refusal(error: BaseException, source: str, kind: str) -> str | None:
    if isinstance(error, GatedRepoError):
        return _gated(source, kind)
    if isinstance(error, RepositoryNotFoundError):
        return NOT_FOUND
    if isinstance(error, RevisionNotFoundError):
        return f"it lacks this revision. Choose a branch, tag or commit listed at {_page(source, kind)}."
    if isinstance(error, HFValidationError):
        return "there is no such folder here, and no repository can bear this name. Check the spelling."
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"a file is missing there. See {_page(source, kind)} for what it holds."
    return None


def _failure(error: BaseException) -> str | None:
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"the Hub refused this token ({status}). Log in with `hf auth login`, with a token that may read it."
            )
        if status == 404:
            return NOT_FOUND
        return f"the Hub answered {status}. Try again later, or give a local folder."
    if isinstance(error, network_errors()):
        return "the Hub cannot be reached and the cache lacks it. Check the network, or give a local folder."
    return None


def _gated(source: str, kind: str) -> str:
    return f"its authors grant access one by one. Ask for it at {_page(source, kind)} and log in with `hf auth login`."


def _page(source: str, kind: str) -> str:
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{source}"


def _message(argument: str, kind: str, source: str, reason: str) -> str:
    return f"`{argument}` must be a {kind} that can be read, got {source!r}: {reason}"
