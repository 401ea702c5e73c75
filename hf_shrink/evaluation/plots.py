"""The picture of a report: quality with its interval against size, larger points for slower models."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.report import Entry, ShrinkReport
from hf_shrink.evaluation.table import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.offsetbox import AnnotationBbox

COLORS = ("#33415c", "#d96c0f", "#1b7f69", "#7b4ea3", "#c43a4b", "#2f7fbf")  # dark enough to read as text on white
GREY = "#5c6675"
SMALLEST, LARGEST = 60.0, 420.0  # marker areas in square points
LOG_FROM = 10.0  # a wider range of sizes would crowd the small models at the left edge


@dataclass(frozen=True)
class Point:
    """One model of the picture, in the units of the axes.

    Args:
        name: The entry's name.
        facts: Size and latency in words.
        x: Megabytes.
        y: The metric.
        low: Lower end of its bar; `y` itself where there is no interval.
        high: Upper end.
        area: Of its marker, in square points.
        color: Of marker, bar and name.
    """

    name: str
    facts: str
    x: float
    y: float
    low: float
    high: float
    area: float
    color: str


def plot_pareto(report: ShrinkReport, path: str | Path) -> Path:
    """Draw quality with its interval against size on disk.

    Args:
        report: Any report; entries without a value or without a size are left out.
        path: The picture; its ending chooses the format (.png, .svg, .pdf).

    Returns:
        The path written.

    Raises:
        ShrinkError: If no entry has both a value and a size.
    """
    from matplotlib.figure import Figure

    points = [_point(report, i) for i, e in enumerate(report.entries) if e.value is not None and e.size_bytes]
    if not points:
        raise ShrinkError(
            "`report` must hold a model with quality and size to be drawn, got none. Make one with compare()."
        )
    figure = Figure(figsize=(7.2, 4.6), dpi=160, layout="constrained")  # not pyplot: its global state would leak
    axes = figure.add_subplot()
    axes.plot(
        [p.x for p in points], [p.y for p in points], color="#b8bfca", linewidth=1.2, linestyle=(0, (4, 3)), zorder=1
    )
    for point in points:
        ends = [[point.y - point.low], [point.high - point.y]]
        axes.errorbar(point.x, point.y, yerr=ends, color=point.color, capsize=4, linewidth=1.4, zorder=2)
        axes.scatter(point.x, point.y, s=point.area, color=point.color, edgecolor="white", linewidth=1.2, zorder=3)
    _dress(axes, report, points)
    figure.draw_without_rendering()  # places in pixels exist from here on
    _label(axes, points)
    figure.savefig(path)
    return Path(path)


def _point(report: ShrinkReport, index: int) -> Point:
    entry = report.entries[index]
    scale = 100.0 if report.percent else 1.0
    value: Any = entry.value
    bounded = entry.low is not None and entry.high is not None
    low, high = (entry.low, entry.high) if bounded else (value, value)
    megabytes = (entry.size_bytes or 0) / 1e6
    latency = "" if entry.latency is None else f", {entry.latency.p50_ms:.3g} ms"
    color = COLORS[index % len(COLORS)]
    return Point(
        name=entry.name,
        facts=f"{megabytes:.3g} MB{latency}",
        x=megabytes,
        y=scale * value,
        low=scale * (low or 0.0),
        high=scale * (high or 0.0),
        area=_area(report, entry),
        color=color,
    )


def _area(report: ShrinkReport, entry: Entry) -> float:
    slowest = max((e.latency.p50_ms for e in report.entries if e.latency is not None), default=None)
    if slowest is None or entry.latency is None:
        return SMALLEST
    return SMALLEST + (LARGEST - SMALLEST) * entry.latency.p50_ms / slowest


def _dress(axes: "Axes", report: ShrinkReport, points: list[Point]) -> None:
    sizes = [point.x for point in points]
    if max(sizes) / min(sizes) > LOG_FROM:
        _log_scale(axes)
        axes.set_xlim(min(sizes) / 2, max(sizes) * 3)  # room for the labels beside the points
    else:
        axes.set_xlim(0, max(sizes) * 1.28)
    axes.margins(y=0.18)
    axes.set_xlabel("Size on disk (MB)")
    unit = " (%)" if report.percent else ""
    axes.set_ylabel(f"{metric_title(report.metric)}{unit}{'' if report.higher_is_better else ', lower is better'}")
    split = f" ({report.split})" if report.split else ""
    axes.set_title(f"{report.dataset}{split}, {report.rows:,} rows", fontsize=11, loc="left")
    axes.set_title(_caption(report), fontsize=8, loc="right", color=GREY)
    axes.grid(color="#e6e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _log_scale(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda megabytes, _: f"{megabytes:g}"))


def _caption(report: ShrinkReport) -> str:
    bars = [f"bars: {report.interval} interval"] if report.interval else []
    timed = any(entry.latency is not None for entry in report.entries)
    return "; ".join([*bars, *(["larger points: slower"] if timed else [])])


def _label(axes: "Axes", points: list[Point]) -> None:
    taken = [box for point in points for box in _occupied(axes, point)]
    for point in points:
        free = None
        for anchor, offset, alignment in _places(point):
            label = _label_box(point, anchor, offset, alignment)
            axes.add_artist(label)
            box = label.get_window_extent()
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                free = label
                break
            label.remove()
        if free is None:  # crowded on all sides: the label stands beside its point all the same
            free = _label_box(point, *_places(point)[0])
            axes.add_artist(free)
        taken.append(free.get_window_extent())


def _places(point: Point) -> list[tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]:
    gap = (point.area / 3.14159) ** 0.5 + 3
    return [
        ((point.x, point.y), (gap, 0), (0, 0.5)),
        ((point.x, point.y), (-gap, 0), (1, 0.5)),
        ((point.x, point.high), (0, gap if point.high == point.y else 3), (0.5, 0)),
        ((point.x, point.low), (0, -gap if point.low == point.y else -3), (0.5, 1)),
    ]


def _label_box(
    point: Point, anchor: tuple[float, float], offset: tuple[float, float], alignment: tuple[float, float]
) -> "AnnotationBbox":
    from matplotlib.offsetbox import AnnotationBbox, TextArea, VPacker
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]  # keeps the words readable over the line and the grid
    name = TextArea(
        point.name, textprops={"color": point.color, "fontsize": 10, "fontweight": "bold", "path_effects": halo}
    )
    facts = TextArea(point.facts, textprops={"color": GREY, "fontsize": 8, "path_effects": halo})
    align: Any = {0: "left", 0.5: "center", 1: "right"}[alignment[0]]
    packed = VPacker(children=[name, facts], align=align, pad=0, sep=2)
    return AnnotationBbox(
        packed,
        anchor,
        xybox=offset,
        boxcoords="offset points",
        box_alignment=alignment,
        frameon=False,
        pad=0,
        zorder=4,
    )


def _occupied(axes: "Axes", point: Point) -> list[Any]:
    from matplotlib.transforms import Bbox

    radius = (point.area / 3.14159) ** 0.5 * axes.figure.dpi / 72
    x, y = axes.transData.transform((point.x, point.y))
    (_, low), (_, high) = axes.transData.transform([(point.x, point.low), (point.x, point.high)])
    return [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius),
        Bbox.from_extents(x - 4, low, x + 4, high),
    ]
