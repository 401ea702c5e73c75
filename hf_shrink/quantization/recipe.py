"""What makes two artifacts the same, as a hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hf_shrink.quantization.job import Job


def recipe_hash(job: Job, method: str, record: Mapping[str, Any]) -> str:
    """Hash what an artifact is made of: the weights, the method with its options, what stays in float, the rows read.

    Args:
        job: What was asked for.
        method: Name of the quantizer.
        record: What the quantizer says of it.

    Returns:
        SHA-256 in hexadecimal; equal recipes have equal hashes on every machine.
    """
    digest = hashlib.sha256()
    settings = {"method": method, "task": job.task, "ignore": job.ignore, "options": record["options"]}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(job.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    for batch in job.calibration:
        for name, tensor in sorted(batch.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
