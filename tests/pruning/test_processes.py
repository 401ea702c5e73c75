"""Two processes prune the same weights."""

import json

import pytest
from safetensors.torch import load_file

from tests.processes import run_processes
from tests.pruning.run_in_processes import CASES
from tests.pruning.training import masks_in, revived


@pytest.mark.slow
def test_masks_are_the_same_in_two_processes(tmp_path):
    run_processes(2, "tests.pruning.run_in_processes", tmp_path)
    one, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert one.pop("agreed") == other.pop("agreed") == {"taylor": [1.5, 1.5], "movement": [1.5, 1.5]}
    assert one.keys() == CASES.keys()
    assert one == other
    assert len({found["digest"] for found in one.values()}) == len(CASES)
    for case in CASES:
        folder = tmp_path / case / "checkpoint-6"
        assert revived(load_file(folder / "model.safetensors"), masks_in(folder)) == 0
