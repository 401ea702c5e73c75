"""The only file that branches on the version of a library; each branch says which version lets it go."""

from typing import Any

import huggingface_hub
import transformers


def network_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where no answer came.

    Returns:
        Classes for `except`.
    """
    line = int(huggingface_hub.__version__.split(".")[0])
    if line < 1:  # goes when transformers 4 does, which pins huggingface_hub below 1
        from requests.exceptions import ConnectionError as RequestsConnectionError
        from requests.exceptions import Timeout

        return ConnectionError, RequestsConnectionError, Timeout
    if line < 2:  # goes when huggingface_hub 2 is the oldest allowed
        from httpx import TransportError
    else:
        from httpx2 import TransportError
    return ConnectionError, TransportError


def length_grouping() -> dict[str, Any]:
    """The training argument that puts rows of about the same length into a batch.

    Returns:
        Keyword arguments for `TrainingArguments`.
    """
    if int(transformers.__version__.split(".")[0]) < 5:  # goes when transformers 4 does
        return {"group_by_length": True}
    return {"train_sampling_strategy": "group_by_length"}
