"""Pictures of a small dataset: its score against its size, and where its rows lie among all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.plots import COLORS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hf_shrink.dataset_distillation.report import DatasetReport

MOST_ROWS = 2_000  # of the map; beyond them points hide each other, and t-SNE takes minutes
PERPLEXITY = 30.0


def plot_curve(report: "DatasetReport", path: str | Path) -> Path:
    """Draw the score on held-out rows against the rows kept, with intervals.

    Args:
        report: Any that holds a curve.
        path: The picture; its ending chooses the format.

    Returns:
        The path written.

    Raises:
        ShrinkError: If there is no curve.
    """
    from matplotlib.figure import Figure

    if not report.curve:
        raise ShrinkError(
            "`report` must hold a curve to be drawn, got none. Distil rows with labels, and with curve=True."
        )
    figure = Figure(figsize=(7.2, 4.6), dpi=160, layout="constrained")  # not pyplot: its global state would leak
    axes = figure.add_subplot()
    rows = [point.rows for point in report.curve]
    chosen = [(100 * p.score, 100 * p.half_width) for p in report.curve]
    plain = [(100 * p.stratified, 100 * p.stratified_half_width) for p in report.curve]
    _line(axes, rows, plain, "stratified sample", GREY)
    if report.selector != "stratified":
        _line(axes, rows, chosen, report.selector, COLORS[1])
    axes.axvline(report.rows, color="#b8bfca", linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xscale("log")
    axes.set_xlabel("Rows kept")
    axes.set_ylabel(f"{report.metric[:1].upper()}{report.metric[1:]} on held-out rows (%)")
    axes.set_title(f"{report.source}, {report.rows_before:,} rows", fontsize=11, loc="left")
    axes.set_title("linear head on embeddings; bands: 95 %", fontsize=8, loc="right", color=GREY)
    axes.legend(frameon=False, loc="lower right")
    _dress(axes)
    axes.grid(color="#e6e9ee", linewidth=0.8)
    figure.savefig(path)
    return Path(path)


def plot_map(
    embeddings: NDArray[np.float32],
    kept: NDArray[np.int64],
    ids: NDArray[np.int64],
    path: str | Path,
    *,
    seed: int = 0,
) -> Path:
    """Draw rows in two dimensions by t-SNE (van der Maaten & Hinton, 2008), those kept in dark.

    Args:
        embeddings: Shape (N, D).
        kept: Shape (K,), positions of the rows kept.
        ids: Shape (N,), class ids, which give the colours.
        path: The picture; its ending chooses the format.
        seed: Of the rows drawn, where there are many, and of the map.

    Returns:
        The path written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = _shown(len(embeddings), kept, seed)
    places = _places(embeddings[shown], seed)
    marked = np.isin(shown, kept)
    colors = colormaps["tab20"](ids[shown] % 20)
    figure = Figure(figsize=(6.4, 6.0), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(places[~marked, 0], places[~marked, 1], s=7, c=colors[~marked], alpha=0.35, linewidth=0)
    axes.scatter(places[marked, 0], places[marked, 1], s=26, c=colors[marked], edgecolor="#1c2433", linewidth=0.9)
    few = "" if len(shown) == len(embeddings) else f", {len(shown):,} of them drawn"
    axes.set_title(f"{len(kept):,} rows kept (ringed) of {len(embeddings):,}{few}", fontsize=11, loc="left")
    axes.set_title("t-SNE; colours: classes", fontsize=8, loc="right", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    _dress(axes)
    figure.savefig(path)
    return Path(path)


def _shown(rows: int, kept: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All rows, or so many by lot, in which those kept have their share."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng([seed, rows]).permutation(rows)[:MOST_ROWS])


def _places(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, max(1.0, (len(embeddings) - 1) / 3))
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(embeddings)


def _line(axes: "Axes", rows: list[int], values: list[tuple[float, float]], name: str, color: str) -> None:
    middle, width = (np.array(part) for part in zip(*values, strict=True))
    axes.fill_between(rows, middle - width, middle + width, color=color, alpha=0.15, linewidth=0)
    axes.plot(rows, middle, color=color, linewidth=1.8, marker="o", markersize=4, label=name)


def _dress(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
