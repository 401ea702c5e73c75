import numpy as np
import pytest
from PIL import Image

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.pictures import plot_curve, plot_map
from tests.dataset_distillation.clusters import clustered
from tests.dataset_distillation.test_report import FULL


def colours(path):
    return len(Image.open(path).convert("RGB").getcolors(10**6))


def test_the_curve_is_drawn(tmp_path):
    path = plot_curve(FULL, tmp_path / "curve.png")
    assert Image.open(path).size == (1152, 736)
    assert colours(path) > 50
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_no_curve_is_an_error(tmp_path):
    from dataclasses import replace

    with pytest.raises(ShrinkError, match="`report` must hold a curve"):
        plot_curve(replace(FULL, curve=()), tmp_path / "curve.png")


def test_the_map_shows_kept_rows_among_all(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_shrink.dataset_distillation.pictures.MOST_ROWS", 150)
    vectors, ids = clustered(rows=200)
    path = plot_map(vectors, np.arange(20), ids, tmp_path / "map.png")
    assert colours(path) > 50
