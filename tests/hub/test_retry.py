"""What counts as passing, and how long is waited for it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.retry import MAX_WAIT, Failure, _wait, ask


@pytest.mark.parametrize("status", [None, 408, 409, 412, 425, 429, 500, 502, 503, 504])
def test_passing(status):
    assert Failure(status, "").passing


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 416])
def test_lasting(status):
    assert not Failure(status, "").passing


def test_a_wait_beyond_patience_and_an_offline_switch_are_lasting():
    assert Failure(429, "", wait=MAX_WAIT).passing
    assert not Failure(429, "", wait=MAX_WAIT + 1).passing
    assert not Failure(None, "", offline=True).passing


def test_headers_that_ask_to_wait():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert _wait({"Retry-After": "7"}) == 7.0
    assert 80 < _wait({"Retry-After": soon}) <= 90
    assert _wait({"RateLimit": '"api";r=0;t=55'}) == 55.0
    assert _wait({"RateLimit": '"api";r=3;t=55'}) is None
    assert _wait({"Retry-After": "soon"}) is None
    assert _wait({}) is None


def test_reading_is_asked_again(repo_id, hub, waits):
    HfApi().create_repo(repo_id)
    hub.fault("status", path=f"/api/models/{repo_id}", method="GET", status=500, times=2)
    assert ask(lambda: HfApi().model_info(repo_id).id, repo_id) == repo_id
    assert waits == [1.0, 2.0]


def test_offline_switch_is_named():
    def offline():
        raise OfflineModeIsEnabled("offline")

    with pytest.raises(ShrinkError, match="got user/x with HF_HUB_OFFLINE set. Unset it."):
        ask(offline, "user/x")


def test_an_error_of_the_caller_is_not_dressed_up(waits):
    def wrong():
        raise ValueError("a mistake in this program")

    with pytest.raises(ValueError, match="^a mistake in this program$"):
        ask(wrong, "user/x")
    assert waits == []
