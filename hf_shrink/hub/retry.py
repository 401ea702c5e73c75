"""What a failed request to the Hub means, and whether it is worth asking again."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from hf_shrink.errors import ShrinkError

T = TypeVar("T")
READ_TRIES = 4
WRITE_TRIES = 6  # 1 + 2 + 4 + 8 + 16 seconds: a restart of the Hub's front end is over by then
MAX_WAIT = 300.0  # seconds; the Hub counts requests in windows of five minutes

# The root of the client's HTTP errors: requests' under huggingface_hub 0.x, httpx' under 1.x, httpx2's under 2.x.
TRANSPORT_ERROR: type[Exception] = [
    kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] in ("requests", "httpx", "httpx2")
][-1]
# The client wraps a failed upload in RuntimeError, a failed download in LocalEntryNotFoundError, and a card that the
# Hub refuses in ValueError.
CLIENT_ERRORS: tuple[type[Exception], ...] = (
    *(TRANSPORT_ERROR, ConnectionError, TimeoutError, RuntimeError, ValueError),
    *(LocalEntryNotFoundError, LocalTokenNotFoundError),
)

NEXT_STEPS = {
    401: "Log in with `hf auth login`, set HF_TOKEN, or pass `token=`.",
    402: "The account lacks what this needs: see its billing page on the Hub.",
    403: "Use a token with write access there (or, to propose the change as a pull request, `create_pr=True`).",
    404: "Check its name and revision; a private repository looks missing to a token that may not see it.",
}


@dataclass(frozen=True)
class Failure:
    """One failed request.

    Args:
        status: The HTTP status, or None where no answer came.
        message: What the server or the client said, on one line.
        wait: Seconds that the server asked to wait, or None.
        offline: Whether the client refused to ask because HF_HUB_OFFLINE is set.
    """

    status: int | None
    message: str
    wait: float | None = None
    offline: bool = False

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        if self.offline or (self.wait is not None and self.wait > MAX_WAIT):
            return False
        return self.status is None or self.status >= 500 or self.status in (408, 409, 412, 425, 429)


def ask(work: Callable[[], T], repo_id: str, *, tries: int = READ_TRIES) -> T:
    """Do what may be repeated without harm until the Hub answers.

    Args:
        work: Calls the Hub.
        repo_id: The repository that errors name.
        tries: How often at most.

    Returns:
        What `work` returned.

    Raises:
        CLIENT_ERRORS: One that is not about a request.
    """
    attempt = 0
    while True:
        try:
            return work()
        except CLIENT_ERRORS as error:
            attempt += 1
            failure = read_failure(error)
            if failure is None:
                raise
            pause(failure, error, repo_id, attempt, tries)


def pause(failure: Failure, error: Exception, repo_id: str, attempt: int, tries: int) -> None:
    """Wait before the next try: as long as the server says, else twice as long as before.

    Args:
        failure: What failed.
        error: What the client raised.
        repo_id: The repository that errors name.
        attempt: Tries so far.
        tries: Tries at most.

    Raises:
        ShrinkError: If another try is of no use, or there is none left.
    """
    if not failure.passing or attempt >= tries:
        raise ShrinkError(_refusal(failure, repo_id)) from error
    time.sleep(2.0 ** (attempt - 1) if failure.wait is None else failure.wait)


def read_failure(error: Exception) -> Failure | None:
    """Find the failed request that an exception of the client stands for.

    Args:
        error: One of CLIENT_ERRORS.

    Returns:
        What failed, or None where the error is not about a request.
    """
    for link in _chain(error):
        if isinstance(link, OfflineModeIsEnabled):
            return Failure(None, str(link), offline=True)
        if isinstance(link, LocalTokenNotFoundError):
            return Failure(401, "no token was found")
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            # The card's validator answers in the ValueError around the bare "400 Bad Request".
            said = str(error) if isinstance(error, ValueError) else link.server_message or str(link)
            return Failure(link.response.status_code, _one_line(said), _wait(link.response.headers))
    for link in _chain(error):
        if isinstance(link, (TRANSPORT_ERROR, ConnectionError, TimeoutError, json.JSONDecodeError)):
            return Failure(None, f"{type(link).__name__}: {_one_line(str(link))}")
    return None


def _refusal(failure: Failure, repo_id: str) -> str:
    """What to tell the user, with the next step."""
    said = failure.message.removesuffix(".")
    if failure.offline:
        return f"`repo_id` must be reached, got {repo_id} with HF_HUB_OFFLINE set. Unset it."
    if failure.status is None:
        return (
            f"`repo_id` must be reached, got no answer for {repo_id} ({said}). Check the network and HF_ENDPOINT, "
            "then run it again: what has arrived is not sent twice."
        )
    if failure.status == 401:
        return f"`token` must be valid for {repo_id}, the Hub says: {said}. {NEXT_STEPS[401]}"
    if failure.status == 400:
        return f"`repo_id` must take the commit, got a refusal for {repo_id}: {said}. Mend what it names."
    if failure.passing or failure.status == 429:
        wait = "later" if failure.wait is None else f"in {failure.wait:.0f} seconds"
        return f"`repo_id` must be reached, {repo_id} answers {failure.status}: {said}. Try again {wait}."
    step = NEXT_STEPS.get(failure.status, "Mend what it names.")
    return f"`repo_id` must be open to this token, {repo_id} answers {failure.status}: {said}. {step}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wait(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After")
    if value is None:
        spent = re.search(r";\s*r=0\b.*;\s*t=(\d+)", headers.get("RateLimit", ""))  # none left, t seconds to the reset
        return float(spent[1]) if spent else None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # neither seconds nor a date, or a date without a zone
        return None
