"""What choosing among a billion bfloat16 scores takes beside them, and how long, against torch.kthvalue in one run.

python benchmarks/threshold.py --weights 1000000000 --peer-weights 100000000

Memory is the peak of the process's resident memory, set back before each measurement, less what was resident then;
Linux with glibc only. The masks are what was asked for and do not count. torch.kthvalue is measured on fewer scores,
in turn with this project's threshold on the same ones.
"""

import argparse
import ctypes
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from hf_shrink.evaluation.environment import find_environment
from hf_shrink.evaluation.memory import CLEAR, STATUS
from hf_shrink.pruning.selection import _find_cut, _mask, keep_highest
from hf_shrink.pruning.threshold import kth_smallest

RESULTS = Path(__file__).parent / "results" / "threshold.json"
SETS = 20
LIMIT = 64 * 10**6  # bytes of scratch


def resident(field: str) -> int:
    """Bytes: `VmRSS` is what is resident, `VmHWM` its peak."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(line.split()[1])


def measure(action: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and bytes that were added at the peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still held would hide what is taken anew
    CLEAR.write_text("5")
    before = resident("VmRSS")
    begin = time.perf_counter()
    found = action()
    seconds = time.perf_counter() - begin
    scratch = resident("VmHWM") - before
    if isinstance(found, dict):
        scratch -= sum(mask.numel() for mask in found.values())
    return {"seconds": seconds, "scratch_bytes": scratch}


def draw(total: int, dtype: torch.dtype) -> list[tuple[str, Tensor]]:
    """Magnitudes of normal weights, drawn in pieces so that drawing leaves no peak of its own."""
    generator = torch.Generator().manual_seed(0)
    sets = []
    for index in range(SETS):
        size = total * (index + 1) // SETS - total * index // SETS
        values = torch.empty(size, dtype=dtype)
        for piece in values.split(2**20):
            piece.copy_(torch.randn(len(piece), generator=generator).abs())
        sets.append((f"set {index}", values))
    return sets


def measure_all(total: int, dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """The threshold, the masks once it is known, and both in one, over all scores."""
    sets = draw(total, dtype)
    k = round(0.8 * total)
    cut = _find_cut(lambda: sets, k)
    found = {
        "kth_smallest": measure(lambda: kth_smallest(lambda: sets, k)),
        "masks, ties broken": measure(lambda: {name: _mask(values, cut) for name, values in sets}),
        "keep_highest": measure(lambda: keep_highest(lambda: sets, 0.8, "global")),
        "keep_highest, limited": measure(lambda: keep_highest(lambda: sets, 0.8, "global", 0.9)),
    }
    for name, figures in found.items():
        print(f"{total:,} {dtype} {name:22} {figures['seconds']:7.1f} s {figures['scratch_bytes'] / 1e6:7.1f} MB")
    return found


def measure_pair(total: int, dtype: torch.dtype, rounds: int) -> list[dict[str, dict[str, float]]]:
    """torch.kthvalue and this project's threshold on the same scores, in turn."""
    values = torch.cat([part for _, part in draw(total, dtype)])
    k = round(0.8 * total)
    assert kth_smallest(lambda: [("all", values)], k).value == values.kthvalue(k).values.item()
    found = []
    for _ in range(rounds):
        pair = {
            "kthvalue": measure(lambda: values.kthvalue(k)),
            "kth_smallest": measure(lambda: kth_smallest(lambda: [("all", values)], k)),
        }
        found.append(pair)
    for name in found[0]:
        seconds, scratch = (median(pair[name][figure] for pair in found) for figure in ("seconds", "scratch_bytes"))
        print(f"{total:,} {dtype} {name:22} {seconds:7.2f} s {scratch / 1e6:7.1f} MB")
    ratio = median(pair["kth_smallest"]["seconds"] / pair["kthvalue"]["seconds"] for pair in found)
    print(f"{total:,} {dtype} kth_smallest / kthvalue: {ratio:.2f} of the time")
    return found


def main() -> None:
    """Measure, print, and keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=10**9)
    parser.add_argument("--peer-weights", type=int, default=10**8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_highest(lambda: draw(10**6, torch.float32), 0.5, "global", 0.9)  # loads what torch loads at first use
    dtypes = (torch.bfloat16, torch.float32)
    result: dict[str, Any] = {"environment": asdict(find_environment()), "options": vars(options)}
    result["torch_threads"] = torch.get_num_threads()
    result["all"] = {str(torch.bfloat16): measure_all(options.weights, torch.bfloat16)}
    result["pairs"] = {str(dtype): measure_pair(options.peer_weights, dtype, options.rounds) for dtype in dtypes}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    most = max(figures["scratch_bytes"] for figures in result["all"][str(torch.bfloat16)].values())
    print(f"at most {most / 1e6:.1f} MB beside the scores; the limit is {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
