"""A dataset's report in words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_shrink.hub.rendering import paper_link

if TYPE_CHECKING:
    from hf_shrink.dataset_distillation.report import DatasetReport


def report_text(report: "DatasetReport") -> str:
    """Say what was done and what was measured.

    Args:
        report: The report.

    Returns:
        Markdown.
    """
    return "\n".join(_lines(report))


def _lines(report: "DatasetReport") -> Iterator[str]:
    share = 100 * report.rows / report.rows_before
    tokens = "" if report.tokens is None else f", {report.tokens:,} tokens"
    paper = "" if report.paper is None else f" ({paper_link(report.paper)})"
    yield (
        f"{report.rows:,} of {report.rows_before:,} rows of {report.source} ({share:.3g} %{tokens}), chosen by "
        f"`{report.selector}`{paper} under a budget of {report.budget}, seed {report.seed}. {report.verdict}"
    )
    if len(report.stages) > 1:
        yield "\n| Step | Rows before | Rows after | |"
        yield "| --- | ---: | ---: | --- |"
        for stage in report.stages:
            found = ", ".join(f"{name}: {_short(value)}" for name, value in stage.details.items())
            yield f"| {stage.name} | {stage.before:,} | {stage.after:,} | {found} |"
    if report.trials:
        yield f"\nTried on held-out rows with a linear head on the embeddings ({report.metric}, five folds):"
        yield "\n| Method | Score | Gain over a stratified sample | at least (90 %) |"
        yield "| --- | ---: | ---: | ---: |"
        for trial in report.trials:
            gain = f"{100 * trial.gain:+.1f} | {100 * trial.least_gain:+.1f}"
            yield f"| {trial.name} | {100 * trial.score:.1f} | {gain if trial is not report.trials[0] else '| '} |"
    yield from _curve(report)
    yield from _facts(report)


def _curve(report: "DatasetReport") -> Iterator[str]:
    if not report.curve:
        return
    title = report.metric[:1].upper() + report.metric[1:]
    yield f"\n{title} of that head (%) by rows kept, mean and 95 % interval over three folds:"
    yield f"\n| Rows | {report.selector} | stratified sample |"
    yield "| ---: | ---: | ---: |"
    for point in report.curve:
        chosen = f"{100 * point.score:.1f} ± {100 * point.half_width:.1f}"
        plain = f"{100 * point.stratified:.1f} ± {100 * point.stratified_half_width:.1f}"
        yield f"| {point.rows:,} | {chosen} | {plain} |"


def _facts(report: "DatasetReport") -> Iterator[str]:
    reached = [
        f"{100 * float(share):g} % of what all rows reach with {rows:,} rows"
        for share, rows in report.rows_for.items()
        if rows is not None
    ]
    if reached:
        yield f"\nOf the budgets measured, {' and '.join(reached)}."
    if report.coverage is not None and report.stratified_coverage is not None:
        yield (
            f"\nA row is {report.coverage.mean:.3f} from the nearest kept one (cosine, mean; "
            f"{report.stratified_coverage.mean:.3f} with a stratified sample), none further than "
            f"{report.coverage.radius:.3f} ({report.stratified_coverage.radius:.3f})."
        )
    if report.drift is not None:
        yield f"\nClasses moved by {100 * report.drift:.2f} % of the rows."
    times = [f"choosing took {report.select_seconds:.0f} s"]
    if report.encode_seconds is not None:
        times.insert(0, f"embeddings by {report.encoder} took {report.encode_seconds:.0f} s")
    if report.cost_ratio is not None:
        times.append(
            f"together {report.cost_ratio:.2g} of the time that three epochs of a model as large save on fewer rows"
        )
    yield f"\n{'; '.join(times)[:1].upper()}{'; '.join(times)[1:]}."


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
