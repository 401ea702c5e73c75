"""The words of a report: its table, the conditions it was measured under, and what the numbers show."""

from collections.abc import Iterable

from hf_shrink.evaluation.report import Entry, ShrinkReport

DASH = "–"
SIGNIFICANCE = 0.05
NOISE = 1.05  # a ratio of two times that is nearer to 1 says nothing
METRIC_TITLES = {"f1": "F1", "squad_f1": "SQuAD F1", "mse": "MSE", "mae": "MAE", "matthews_correlation": "MCC"}


def table(report: ShrinkReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The report's numbers as text.

    Args:
        report: Any report.

    Returns:
        The header, and one row of the same length for each entry; a dash stands for what was not measured.
    """
    header = (
        *("Model", f"{metric_title(report.metric)}{' (95 % interval)' if report.interval else ''}", "Retention"),
        *("Agreement", "Size", "Smaller", "Parameters", "MACs", "Latency p50 / p95", "Faster", "Peak memory"),
    )
    return header, [_row(report, entry) for entry in report.entries]


def markdown(report: ShrinkReport) -> str:
    """The report as Markdown.

    Args:
        report: Any report.

    Returns:
        One table, the conditions, and a verdict for each smaller model.
    """
    header, rows = table(report)
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *(_line(row) for row in rows)]
    verdicts = [f"- {_escape(report.verdict(i))}" for i in range(1, len(report.entries))]
    verdicts += [f"- {_escape(words)}" for entry in report.entries[1:] for words in drawbacks(report, entry)]
    return "\n".join([*lines, "", conditions(report), *([""] if verdicts else []), *verdicts]) + "\n"


def conditions(report: ShrinkReport) -> str:
    """The conditions that the numbers hold under.

    Args:
        report: Any report.

    Returns:
        Sentences on the data, the interval, the MACs, the latency and the machine; nothing on what was not measured.
    """
    split = f", split {report.split}" if report.split else ""
    sentences = [f"Measured on {report.rows:,} rows of {report.dataset}{split}."]
    if report.interval:
        sentences.append(f"Intervals: {report.interval}.")
    if report.macs_shape and any(entry.macs is not None for entry in report.entries):
        sentences.append(f"MACs: one forward pass of {report.macs_shape[0]} × {report.macs_shape[1]} tokens.")
    sentences += [f"MACs {note}: {', '.join(names)}." for note, names in _notes(report).items()]
    sentences += _latency_conditions(report)
    return " ".join(sentences)


def verdict(report: ShrinkReport, entry: Entry) -> str:
    """Say whether a model lost against the original, and whether these rows can show it.

    Args:
        report: The report that it stands in.
        entry: The model.

    Returns:
        One sentence.
    """
    if entry.value is None or report.original.value is None:
        return f"{entry.name}: the metric is undefined or was not measured, so nothing is claimed."
    change = entry.value - report.original.value
    real, evidence = _evidence(entry)
    if real is None:
        return f"{entry.name} changed by {_signed(report, change)}; no test says whether that is more than chance."
    if not real:
        return (
            f"{entry.name} changed by {_signed(report, change)} ({evidence}): no difference that these rows can show."
        )
    gained = (change > 0) == report.higher_is_better
    verb, noun = ("gained", "gain") if gained else ("lost", "loss")
    return f"{entry.name} {verb} {_points(report, abs(change))} ({evidence}): a real {noun}."


def drawbacks(report: ShrinkReport, entry: Entry) -> list[str]:
    """Say where a model that was made to be smaller and faster is larger or slower.

    Args:
        report: The report that it stands in.
        entry: The model.

    Returns:
        One sentence for each; times within 5 % of the original's count as equal.
    """
    ratios = (
        (report.size_ratio_of(entry), 1.0, "larger on disk than"),
        (report.speedup_of(entry), 1 / NOISE, "slower than"),
    )
    return [
        f"{entry.name} is {1 / ratio:.2f}× {words} the original here."
        for ratio, limit, words in ratios
        if ratio is not None and ratio < limit
    ]


def metric_title(metric: str) -> str:
    """A metric's name as a table writes it.

    Args:
        metric: Registered name, or any other.

    Returns:
        Such as "Matthews correlation" for "matthews_correlation".
    """
    return METRIC_TITLES.get(metric, metric.replace("_", " ")[:1].upper() + metric.replace("_", " ")[1:])


def format_value(report: ShrinkReport, value: float | None) -> str:
    """A value of the report's metric.

    Args:
        report: The report; it knows whether the metric is a share.
        value: The value.

    Returns:
        Such as "93.1 %" or "18.42".
    """
    if value is None:
        return DASH
    return f"{100 * value:.1f} %" if report.percent else f"{value:.4g}"


def format_bytes(size: int | None) -> str:
    """A size in megabytes of 10^6 bytes, as the Hub shows it.

    Args:
        size: Bytes.

    Returns:
        Such as "90.9 MB".
    """
    return DASH if size is None else f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def format_count(count: int | None) -> str:
    """A large count.

    Args:
        count: Parameters or MACs.

    Returns:
        Such as "22.7 M" or "1.42 G".
    """
    if count is None:
        return DASH
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _row(report: ShrinkReport, entry: Entry) -> tuple[str, ...]:
    value = format_value(report, entry.value)
    if entry.value is not None and entry.low is not None and entry.high is not None:
        low, high = format_value(report, entry.low), format_value(report, entry.high)
        value += f" ({low.removesuffix(' %')} – {high.removesuffix(' %')})"
    latency = DASH if entry.latency is None else f"{entry.latency.p50_ms:.2f} / {entry.latency.p95_ms:.2f} ms"
    return (
        *(entry.name, value, _share(report.retention_of(entry)), _share(entry.agreement)),
        *(format_bytes(entry.size_bytes), _times(report.size_ratio_of(entry)), format_count(entry.parameters)),
        *(format_count(entry.macs) + ("†" if entry.macs_note else ""), latency, _times(report.speedup_of(entry))),
        format_bytes(entry.peak_memory_bytes),
    )


def _evidence(entry: Entry) -> tuple[bool | None, str]:
    if entry.p_value is not None:
        p_value = "p < 0.001" if entry.p_value < 0.001 else f"p = {entry.p_value:.2g}"
        return entry.p_value < SIGNIFICANCE, p_value
    if entry.difference_low is None or entry.difference_high is None:
        return None, ""
    inside = entry.difference_low <= 0 <= entry.difference_high
    return not inside, f"the 95 % interval of the difference {'holds' if inside else 'leaves out'} 0"


def _notes(report: ShrinkReport) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for entry in report.entries:
        if entry.macs_note and entry.macs is not None:
            notes.setdefault(f"marked † are {entry.macs_note}", []).append(entry.name)
    return notes


def _latency_conditions(report: ShrinkReport) -> list[str]:
    timed = [entry for entry in report.entries if entry.latency is not None]
    sentences = []
    if timed and timed[0].latency is not None:
        first = timed[0].latency
        length = "" if first.sequence_length is None else f" of {first.sequence_length} tokens"
        types = ", ".join(f"{entry.name} {entry.latency.dtype}" for entry in timed if entry.latency is not None)
        sentences.append(
            f"Latency: batch {first.batch_size}{length}, {_plural(first.threads, 'thread')}, {first.runs} runs after "
            f"warm-up on {first.device} ({types})."
        )
    if report.environment is not None:
        e = report.environment
        versions = [f"{n} {v}" for n, v in (("torch", e.torch), ("transformers", e.transformers)) if v is not None]
        if e.onnxruntime is not None:
            versions.append(f"onnxruntime {e.onnxruntime}")
        sentences.append(f"Machine: {e.cpu}, {_plural(e.cores, 'core')}; {', '.join(versions)}.")
    return sentences


def _points(report: ShrinkReport, change: float) -> str:
    if not report.percent:
        return f"{change:.3g} in {metric_title(report.metric)}"
    return f"{100 * change:.1f} points"


def _signed(report: ShrinkReport, change: float) -> str:
    return f"{'+' if change >= 0 else '−'}{_points(report, abs(change))}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _share(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f} %"


def _times(ratio: float | None) -> str:
    return DASH if ratio is None else f"{ratio:.2f}×"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
