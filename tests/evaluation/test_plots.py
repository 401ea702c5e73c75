from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import imread

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import Entry
from hf_shrink.evaluation.plots import COLORS, plot_pareto
from tests.evaluation.example import example_int8, example_report


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the last picture."""
    figures = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return lambda: figures[-1].axes[0]


def points(axes):
    return [collection for collection in axes.collections if isinstance(collection, PathCollection)]


def labels(axes):
    return {
        child.get_text(): box
        for box in axes.artists
        for packed in box.get_children()
        for area in packed.get_children()
        for child in area.get_children()
    }


def test_the_picture_shows_every_model_in_megabytes_and_percent(tmp_path, drawn):
    path = example_report().plot(tmp_path / "pareto.png")
    axes = drawn()
    places = np.array([point.get_offsets()[0] for point in points(axes)])
    assert places == pytest.approx(np.array([(90.985, 93.1), (69.69, 92.2), (17.812, 91.98)]))
    assert {"teacher", "student", "student int8", "69.7 MB, 3.61 ms"} <= set(labels(axes))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Size on disk (MB)", "Accuracy (%)")
    assert axes.get_xscale() == "linear"
    pixels = imread(path)[..., :3]
    for color in COLORS[:3]:
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(pixels - rgb).max(-1) < 0.02).sum() > 100  # drawn, and not hidden by another


def test_slower_models_have_larger_points_and_labels_do_not_overlap(tmp_path, drawn):
    report = example_report()
    near = replace(example_int8(), name="student int4", size_bytes=66_000_000, value=0.9215, low=0.911, high=0.93)
    replace(report, entries=(*report.entries, near)).plot(tmp_path / "pareto.png")
    axes = drawn()
    areas = [point.get_sizes()[0] for point in points(axes)]
    assert areas[0] > areas[1] > areas[2] == areas[3]
    boxes = [box.get_window_extent() for box in dict.fromkeys(labels(axes).values())]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])


def test_a_wide_range_is_logarithmic(tmp_path, drawn):
    report = example_report()
    tiny = replace(example_int8(), name="tiny", size_bytes=3_000_000)
    replace(report, entries=(*report.entries, tiny)).plot(tmp_path / "pareto.svg")
    assert drawn().get_xscale() == "log"
    assert (tmp_path / "pareto.svg").read_text().startswith("<?xml")


def test_lower_is_better_is_said_and_unmeasured_models_are_left_out(tmp_path, drawn):
    entries = (Entry("a", value=20.0, size_bytes=10**8), Entry("b", value=25.0), Entry("c", size_bytes=10**7))
    report = replace(example_report(), metric="perplexity", percent=False, higher_is_better=False, entries=entries)
    plot_pareto(report, tmp_path / "pareto.png")
    assert drawn().get_ylabel() == "Perplexity, lower is better"
    assert set(labels(drawn())) == {"a", "100 MB"}
    with pytest.raises(ShrinkError, match="`report` must hold a model with quality and size"):
        plot_pareto(replace(report, entries=entries[1:]), tmp_path / "none.png")
