"""The quickstart over several seeds, with the same student trained on labels alone beside it.

python benchmarks/quickstart_seeds.py --seeds 0 1 2 --work-dir seeds

A seed whose stages are finished is measured again and not trained again; it keeps the seconds of its first run.
Other seeds of the results file stay. Run it on an idle machine.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "quickstart.json"


def run_seed(seed: int, folder: Path) -> tuple[int | None, dict]:
    """Run the quickstart, without and then with the baseline; seconds of the first, where it trained, and report."""
    command = [sys.executable, "-c", "from hf_shrink.cli.main import run; run()", "quickstart"]
    command += ["--seed", str(seed), "--output-dir", str(folder)]
    fresh = not folder.exists()
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    subprocess.run([*command, "--baseline"], check=True)
    return round(seconds) if fresh else None, json.loads((folder / "shrink_report.json").read_text())


def main() -> None:
    """Run the seeds one after the other, and write what came out after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("quickstart-seeds"), help="models and reports go there")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in map(str, options.seeds):
        seconds, report = run_seed(int(seed), options.work_dir / f"seed-{seed}")
        results[seed] = {"seconds": seconds or results.get(seed, {}).get("seconds"), "report": report}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        values = {e["name"]: round(100 * e["value"], 2) for e in report["entries"]}
        print(f"seed {seed}: {results[seed]['seconds']} s, {values}")


if __name__ == "__main__":
    main()
