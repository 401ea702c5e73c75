"""One commit to the Hub: sent again until it stands, and never twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HFValidationError, validate_repo_id
from huggingface_hub.utils.sha import git_hash

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.retry import CLIENT_ERRORS, WRITE_TRIES, ask, pause, read_failure

Operation = CommitOperationAdd | CommitOperationDelete
T = TypeVar("T")


@dataclass(frozen=True)
class Destination:
    """Where a commit goes.

    Args:
        api: The client, with its token.
        repo_id: Namespace and name.
        repo_type: "model" or "dataset".
        revision: Branch, or "refs/pr/N"; None for the main one.
        create_pr: Whether to open a pull request instead.
    """

    api: HfApi
    repo_id: str
    repo_type: str = "model"
    revision: str | None = None
    create_pr: bool = False
    _place: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {"repo_id": self.repo_id, "repo_type": self.repo_type})

    def head(self) -> str:
        """The commit that the next one follows.

        Returns:
            Its sha.
        """
        return str(self._ask(lambda: self.api.repo_info(**self._place, revision=self.revision)).sha)

    def files(self, sha: str) -> dict[str, int]:
        """Files of a commit.

        Args:
            sha: The commit.

        Returns:
            Every file's path and its bytes.
        """
        tree = self._ask(lambda: list(self.api.list_repo_tree(**self._place, revision=sha, recursive=True)))
        return {item.path: item.size for item in tree if isinstance(item, RepoFile)}

    def text(self, path: str, sha: str) -> str:
        """A text file of a commit.

        Args:
            path: The file.
            sha: The commit.

        Returns:
            What it holds.
        """
        file = self._ask(lambda: self.api.hf_hub_download(**self._place, filename=path, revision=sha))
        return Path(file).read_text(encoding="utf-8")

    def pull_requests(self) -> dict[str, str]:
        """The heads of the pull requests.

        Returns:
            Name of the reference to the sha of its last commit.
        """
        refs = self._ask(lambda: self.api.list_repo_refs(**self._place, include_pull_requests=True))
        return {ref.ref: ref.target_commit for ref in refs.pull_requests or ()}

    def since(self, sha: str) -> list[str]:
        """The commits after one, on this revision.

        Args:
            sha: The earlier commit.

        Returns:
            Their shas, first one first.
        """
        commits = self._ask(lambda: self.api.list_repo_commits(**self._place, revision=self.revision))
        later = takewhile(lambda commit: commit.commit_id != sha, commits)  # the Hub lists the last one first
        return [commit.commit_id for commit in later][::-1]

    def holds(self, sha: str, additions: Sequence[CommitOperationAdd]) -> bool:
        """Whether a commit's tree has these files with these contents.

        Args:
            sha: The commit.
            additions: The files.

        Returns:
            True if all are there.
        """
        paths = [addition.path_in_repo for addition in additions]
        items = self._ask(lambda: self.api.get_paths_info(**self._place, paths=paths, revision=sha))
        found = {item.path: item for item in items if isinstance(item, RepoFile)}
        return all(a.path_in_repo in found and _same(a, found[a.path_in_repo]) for a in additions)

    def url(self, sha: str) -> str:
        """The address of a commit.

        Args:
            sha: The commit.

        Returns:
            Its page on the Hub.
        """
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{self.api.endpoint}/{kind}{self.repo_id}/commit/{sha}"

    def _ask(self, work: Callable[[], T]) -> T:
        """Read as patiently as the commit is written: what stops the one stops the other."""
        return ask(work, self.repo_id, tries=WRITE_TRIES)


def open_destination(
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> Destination:
    """Find the repository and the branch that a commit goes to, or make them.

    Args:
        repo_id: Namespace and name; a bare name is put into the token's own namespace.
        repo_type: "model" or "dataset".
        private: Visibility of a new repository (None: the account's default); an old one must have it already.
        token: The token; None for the one that is logged in.
        revision: Branch, made from the main one if absent.
        create_pr: Whether the commit will open a pull request.

    Returns:
        Where the commit goes.

    Raises:
        ShrinkError: If the id is malformed, the token lacks the right, or the visibility is another.
    """
    if create_pr and revision not in (None, "main"):
        raise ShrinkError(
            f"`revision` must be None with `create_pr`, got {revision!r}. The Hub opens them on main only."
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ShrinkError(
            f"`repo_id` must be written as namespace/name, got {repo_id!r}: {error} Choose another name."
        ) from error
    api = HfApi(token=token, library_name="hf_shrink")
    if "/" not in repo_id:
        repo_id = f"{ask(api.whoami, repo_id)['name']}/{repo_id}"

    def find_or_make() -> bool:
        try:
            return bool(api.repo_info(repo_id, repo_type=repo_type).private)
        except RepositoryNotFoundError:
            api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
            return bool(api.repo_info(repo_id, repo_type=repo_type).private)

    is_private = ask(find_or_make, repo_id)
    if private is not None and private != is_private:
        raise ShrinkError(
            f"`private` must be {is_private}, as {repo_id} is already, got {private}. Change its visibility on the "
            "Hub first, or leave `private` out."
        )
    if revision is not None and revision != "main" and not revision.startswith("refs/"):
        ask(lambda: api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True), repo_id)
    return Destination(api, repo_id, repo_type, revision, create_pr)


def commit(destination: Destination, operations: Callable[[str], Sequence[Operation]], message: str) -> str:
    """Commit, and try again while the Hub is busy, limits the rate, or the network fails.

    A try whose answer was lost may have made its commit: after each failure, the commits made since are searched for
    these files. The parent stays the same, so that nothing of others is overwritten unseen; only when the Hub says
    that it has moved (412) the operations are made anew on what is there then.

    Args:
        destination: Where to.
        operations: Makes the operations for the commit with this sha as parent.
        message: Title of the commit.

    Returns:
        Address of the commit, or of the head where nothing has changed.

    Raises:
        CLIENT_ERRORS: One that is not about a request.
    """
    parent = destination.head()
    known = destination.pull_requests() if destination.create_pr else {}
    attempt = 0
    while True:
        planned = operations(parent)
        try:
            return destination.api.create_commit(
                destination.repo_id,
                planned,
                repo_type=destination.repo_type,
                commit_message=message,
                revision=destination.revision,
                create_pr=destination.create_pr,
                parent_commit=parent,
            ).commit_url
        except CLIENT_ERRORS as error:
            attempt += 1
            failure = read_failure(error)
            if failure is None:
                raise
            if failure.passing and (landed := _landed(destination, parent, known, planned)):
                return destination.url(landed)
            pause(failure, error, destination.repo_id, attempt, WRITE_TRIES)
        if failure.status == 412:
            parent = destination.head()


def _landed(
    destination: Destination, parent: str, known: dict[str, str], operations: Sequence[Operation]
) -> str | None:
    """The commit that a try without an answer made, if it did."""
    additions = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
    if destination.create_pr:
        candidates = [sha for ref, sha in destination.pull_requests().items() if ref not in known]
    else:
        candidates = destination.since(parent)
    return next((sha for sha in candidates if destination.holds(sha, additions)), None)


def _same(addition: CommitOperationAdd, file: RepoFile) -> bool:
    if file.lfs is not None:
        return bool(file.lfs.sha256 == addition.upload_info.sha256.hex())
    with addition.as_file() as content:
        return bool(file.blob_id == git_hash(content.read()))
