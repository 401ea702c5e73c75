"""Downloads whose content is checked: the client compares sizes, never hashes."""

import hashlib
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.retry import ask


def download(repo_id: str, *, revision: str | None = None, repo_type: str = "model", token: str | None = None) -> Path:
    """Download a repository into the Hub's cache, and compare every file with the hash that the Hub has of it.

    Args:
        repo_id: Namespace and name.
        revision: Branch, tag or commit; None for the main branch.
        repo_type: "model" or "dataset".
        token: The token; None for the one that is logged in.

    Returns:
        The folder, which `from_pretrained` and `load_dataset` take.

    Raises:
        ShrinkError: If the Hub cannot be reached, or a file came damaged; a damaged file is removed from the cache.
    """
    api = HfApi(token=token, library_name="hf_shrink")
    folder = Path(ask(lambda: api.snapshot_download(repo_id, repo_type=repo_type, revision=revision), repo_id))
    commit = folder.name  # the branch may move between the two requests
    tree = ask(
        lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo_type)), repo_id
    )
    files = [item for item in tree if isinstance(item, RepoFile)]
    damaged = [file.path for file in files if not _is_intact(folder / file.path, file)]
    for path in damaged:
        (folder / path).resolve().unlink(missing_ok=True)  # the blob behind the link
        (folder / path).unlink(missing_ok=True)
    if damaged:
        raise ShrinkError(
            f"`repo_id` must arrive as the Hub has it, but {damaged} of {repo_id} came damaged. They were removed "
            "from the cache: download again."
        )
    return folder


def _is_intact(path: Path, file: RepoFile) -> bool:
    if not path.is_file():
        return False
    if file.lfs is None:  # small files have git's hash only
        return bool(git_hash(path.read_bytes()) == file.blob_id)
    with path.open("rb") as content:
        return bool(hashlib.file_digest(content, "sha256").hexdigest() == file.lfs.sha256)
