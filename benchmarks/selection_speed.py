"""Selectors against what else there is: seconds, memory, and what they reach, in one run.

python benchmarks/selection_speed.py --embeddings rows.npy more.npz --peer-python other/bin/python --rounds 5

* `facility_location` against apricot-select's FacilityLocationSelection, its default optimizer and its lazy one, all
  given the same embeddings. `--peer-python` is an interpreter of an environment that holds apricot-select and
  scikit-learn; without it, the peer is left out.
* `facility_location` on 100 000 rows: its memory.
* `k_center` against the plain loop in torch: one product of all rows with the last pick, minimum, argmax.

Every run has a process of its own. Seconds and peak memory are those of the call alone, past what was resident when it
began: imports, embeddings, and a small call before it, in which numba compiles. Each round runs every arm in turn, and
a ratio is taken within its round; every other round goes backwards.

Embeddings are the rows of the files (`.npy`, or `x` in `.npz`), in random order. Where they are fewer than an arm
needs, copies with noise follow; without files, rows are drawn from a mixture of 500 clusters.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

RESULTS = Path(__file__).parent / "results" / "selection_speed.json"
NOISE = 0.015  # standard deviation of what is added to each number of a copy; cosines with the original about 0.96
OURS, LOOP = "hf_shrink", "torch loop"
APRICOT, APRICOT_LAZY = "apricot, two-stage", "apricot, lazy"


def unit(rows):  # noqa: ANN001, ANN201
    """Scale rows to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(files: list[Path], size: int):  # noqa: ANN201
    """Rows of the files, filled up with noisy copies, or of a mixture; and how many are neither."""
    generator = np.random.default_rng(0)
    if not files:
        centres = generator.standard_normal((500, 384))
        chosen = centres[generator.choice(500, size, p=generator.dirichlet(np.full(500, 0.5)))]
        return unit(chosen + generator.standard_normal((size, 384))), 0
    rows = unit(np.concatenate([np.load(f) if f.suffix == ".npy" else np.load(f)["x"] for f in files]))
    rows = rows[generator.permutation(len(rows))[:size]]
    copies = rows[generator.integers(len(rows), size=size - len(rows))]
    noise = NOISE * generator.standard_normal(copies.shape, dtype=np.float32)
    return np.concatenate([rows, unit(copies + noise)]), len(rows)


def ours(method: str):  # noqa: ANN201
    """A selector of this project."""
    from hf_shrink.dataset_distillation import SELECTORS, Candidates

    function = SELECTORS[method].function
    return lambda rows, count: function(Candidates(len(rows), rows), count, np.random.default_rng(0)).rows


def apricot(optimizer: str):  # noqa: ANN201
    """The peer's selection."""
    from apricot import FacilityLocationSelection

    def select(rows, count):  # noqa: ANN001, ANN202
        return FacilityLocationSelection(count, metric="cosine", optimizer=optimizer).fit(rows).ranking

    return select


def torch_loop(rows, count):  # noqa: ANN001, ANN201
    """Farthest first as it is usually written."""
    import torch

    rows = torch.from_numpy(rows)
    picks = [int((rows @ rows.mean(0)).argmax())]
    distances = torch.full((len(rows),), torch.inf)
    while len(picks) < count:
        distances = torch.minimum(distances, 2 - 2 * (rows @ rows[picks[-1]]))
        picks.append(int(distances.argmax()))
    return picks


def arm_of(method: str, arm: str):  # noqa: ANN201
    """The function that an arm times."""
    if arm == LOOP:
        return torch_loop
    return ours(method) if arm == OURS else apricot(arm.split(", ")[1])


def resident(field: str) -> int:
    """Bytes: `VmRSS` is what is resident, `VmHWM` its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def child(options: argparse.Namespace) -> None:
    """Run one arm and print what it took."""
    rows = np.load(options.rows)[: options.size]
    select = arm_of(options.method, options.arm)
    select(rows[:600].copy(), 20)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    picks = select(rows, options.count)
    seconds = time.perf_counter() - start
    picks = [int(pick) for pick in picks]
    print(json.dumps({"seconds": seconds, "bytes": resident("VmHWM") - before, "picks": picks}))


def run(python: str, rows: Path, method: str, arm: str, size: int, count: int) -> dict:
    """Start one arm in a process of its own."""
    command = [python, __file__, "--rows", str(rows), "--method", method, "--arm", arm]
    done = subprocess.run(
        [*command, "--size", str(size), "--count", str(count)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def rounds(number: int, pythons: dict[str, str], *task) -> dict[str, list[dict]]:  # noqa: ANN002
    """Every arm in turn, so many times."""
    rows, method, size, count = task
    found: dict[str, list[dict]] = {arm: [] for arm in pythons}
    for turn in range(number):
        for arm in list(pythons)[:: -1 if turn % 2 else 1]:
            found[arm].append(run(pythons[arm], rows, method, arm, size, count))
    return found


def objective(rows, picks) -> float:  # noqa: ANN001
    """Sum over the rows of the cosine with the most similar pick."""
    return float(np.maximum(rows @ rows[picks].T, 0).max(1).sum(dtype=np.float64))


def compare_facility_location(options: argparse.Namespace, path: Path) -> dict:
    """Ratios to the peer; its lazy optimizer is the exact greedy algorithm, which the gap is measured by."""
    pythons = {OURS: sys.executable}
    if options.peer_python:
        pythons |= dict.fromkeys((APRICOT, APRICOT_LAZY), options.peer_python)
    found = rounds(options.rounds, pythons, path, "facility_location", 10_000, 1000)
    rows = np.load(path)[:10_000]
    reached = {arm: objective(rows, runs[0]["picks"]) for arm, runs in found.items()}
    generator = np.random.default_rng(0)
    reached["random"] = float(np.mean([objective(rows, generator.permutation(10_000)[:1000]) for _ in range(5)]))
    result = {"rows": 10_000, "count": 1000, **measured(found), "objective": reached}
    if options.peer_python:
        result["share_of_gap"] = (reached[OURS] - reached["random"]) / (reached[APRICOT_LAZY] - reached["random"])
    return result


def compare_k_center(options: argparse.Namespace, path: Path) -> dict:
    """Ratios to the loop, and whether the picks are the same."""
    found = rounds(options.rounds, dict.fromkeys((OURS, LOOP), sys.executable), path, "k_center", 100_000, 500)
    same = all(run["picks"] == found[LOOP][0]["picks"] for runs in found.values() for run in runs)
    return {"rows": 100_000, "count": 500, **measured(found), "identical_picks": same}


def large_facility_location(options: argparse.Namespace, path: Path) -> dict:
    """Memory and seconds where a matrix of all similarities would take 40 GB."""
    found = rounds(1, {OURS: sys.executable}, path, "facility_location", 100_000, 1000)
    return {"rows": 100_000, "count": 1000, **measured(found)}


def measured(found: dict[str, list[dict]]) -> dict:
    """Seconds, bytes, and each arm's ratios to ours."""
    others = [arm for arm in found if arm != OURS]
    pairs = {arm: list(zip(found[arm], found[OURS], strict=True)) for arm in others}
    return {
        "seconds": {arm: [run["seconds"] for run in runs] for arm, runs in found.items()},
        "peak_bytes": {arm: [run["bytes"] for run in runs] for arm, runs in found.items()},
        "times_faster_than": {arm: [a["seconds"] / b["seconds"] for a, b in pairs[arm]] for arm in others},
        "memory_of": {arm: [b["bytes"] / a["bytes"] for a, b in pairs[arm]] for arm in others},
    }


PARTS = {
    "k_center": compare_k_center,
    "facility_location": compare_facility_location,
    "facility_location_large": large_facility_location,
}


def main() -> None:
    """Run the parts and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, nargs="+", default=[])
    parser.add_argument("--peer-python", help="interpreter of an environment with apricot-select and scikit-learn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for name, kind in {"rows": Path, "method": str, "arm": str, "size": int, "count": int}.items():
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)  # of a child
    options = parser.parse_args()
    if options.arm:
        child(options)
        return
    from dataclasses import asdict

    from hf_shrink.evaluation.environment import find_environment

    if not options.peer_python:
        print("no --peer-python: apricot-select is left out")
    rows, real = embeddings(options.embeddings, 100_000)
    result = {"environment": asdict(find_environment()), "rounds": options.rounds, "rows_from_files": real}
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", rows)
        for part in options.parts:
            result[part] = PARTS[part](options, Path(folder) / "rows.npy")
            show(part, result[part])
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def show(part: str, result: dict) -> None:
    """Print a part's medians."""
    print(f"{part}: {result['rows']} rows to {result['count']}")
    for arm, seconds in result["seconds"].items():
        line = f"  {arm:20} {median(seconds):8.3f} s {max(result['peak_bytes'][arm]) / 2**20:8.0f} MB"
        if arm in result["times_faster_than"]:
            values, memory = result["times_faster_than"][arm], median(result["memory_of"][arm])
            line += f"   {median(values):.1f} x ({min(values):.1f} to {max(values):.1f}), memory {memory:.2f} of it"
        print(line)
    for fact in ("objective", "share_of_gap", "identical_picks"):
        if fact in result:
            print(f"  {fact}: {result[fact]}")


if __name__ == "__main__":
    main()
