"""What came of `hf-shrink quantize`, in the words of report, card and terminal."""

from hf_shrink.evaluation import MethodUse
from hf_shrink.quantization import QUANTIZERS, QuantizedArtifact


def quantization_use(artifact: QuantizedArtifact) -> MethodUse:
    """What the card says of the method.

    Args:
        artifact: What was made.

    Returns:
        The method with its real values.
    """
    record = artifact.record
    values = dict(record["options"])
    if record["ignore"]:
        values["ignore"] = record["ignore"]
    if "calibration" in record:
        values |= {f"calibration_{name}": record["calibration"][name] for name in ("dataset", "rows", "seed")}
    return MethodUse(artifact.method, "Quantization", QUANTIZERS[artifact.method].paper, values)


def quantization_notes(artifact: QuantizedArtifact) -> tuple[str, ...]:
    """Why this method, and what was tried to keep an accuracy.

    Args:
        artifact: What was made.

    Returns:
        Sentences for report and card.
    """
    record, notes = artifact.record, []
    if "chosen_because" in record:
        notes.append(f"`auto` took {artifact.method}: {record['chosen_because']}.")
    if found := record.get("max_drop"):
        notes.append(
            f"Of {len(found['trials'])} tried, this one (modules in float: {len(record['ignore'])}) loses "
            f"{_number(found['drop'])} by {found['metric']} on {found['rows']:,} rows of {found['dataset']}, where "
            f"{found['asked']:g} was allowed."
        )
    return tuple(notes)


def missed_drop(artifact: QuantizedArtifact) -> str | None:
    """Say that more was lost than was allowed.

    Args:
        artifact: What was made.

    Returns:
        The line; None where it was kept, or not asked for.
    """
    found = artifact.record.get("max_drop")
    if found is None or found["met"]:
        return None
    return (
        f"`max_drop` could not be kept: the best of {len(found['trials'])} loses {_number(found['drop'])} by "
        f"{found['metric']}, where {found['asked']:g} was allowed. It is in {artifact.path}. Allow more, or take a "
        "method with more bits."
    )


def _number(drop: float | None) -> str:
    return "more than can be counted" if drop is None else f"{drop:.4g}"
