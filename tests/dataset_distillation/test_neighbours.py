import numpy as np
import pytest

from hf_shrink.dataset_distillation import neighbours as module
from hf_shrink.dataset_distillation.grid import on_grid
from hf_shrink.dataset_distillation.neighbours import neighbour_graph
from tests.dataset_distillation.selectors.rows import clumps


@pytest.mark.parametrize("tile", [16, 50, 512])
@pytest.mark.parametrize("neighbours", [1, 12, 200, 1000])
def test_all_that_is_above_a_rows_floor_is_there(monkeypatch, tile, neighbours):
    monkeypatch.setattr(module, "TILE", tile)
    rows = on_grid(clumps(200))
    graph, floors = neighbour_graph(rows, neighbours)
    expected = np.maximum(rows @ rows.T - floors[:, None], 0)
    assert np.array_equal(graph.toarray(), expected)
    assert (graph.diagonal() > 0).all()
    if neighbours >= 200:
        assert not floors.any()


def test_a_row_has_about_as_many_neighbours_as_were_asked_for():
    graph, _ = neighbour_graph(on_grid(clumps(4000, width=24, count=30)), 100)
    assert 80 < graph.nnz / 4000 < 125


def test_rows_with_many_copies_keep_themselves():
    rows = on_grid(np.repeat(clumps(2), 300, axis=0))
    graph, _ = neighbour_graph(rows, 10)
    assert (graph.diagonal() > 0).all()
