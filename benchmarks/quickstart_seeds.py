"""The quickstart over several seeds, with the same student trained on labels alone beside it.

python benchmarks/quickstart_seeds.py --seeds 0 1 2 --work-dir seeds

A seed whose stages are finished is measured again and not trained again; its training time is then not known.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "quickstart.json"


def run_seed(seed: int, folder: Path) -> dict:
    """Run the quickstart, without and then with the baseline, which takes no part in the timing."""
    command = [sys.executable, "-c", "from hf_shrink.cli.main import run; run()", "quickstart"]
    command += ["--seed", str(seed), "--output-dir", str(folder)]
    fresh = not folder.exists()
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    subprocess.run([*command, "--baseline"], check=True)
    report = json.loads((folder / "shrink_report.json").read_text())
    return {"seconds": round(seconds) if fresh else None, "report": report}


def main() -> None:
    """Run the seeds one after the other, and write what came out after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("quickstart-seeds"), help="models and reports go there")
    options = parser.parse_args()
    results = {}
    for seed in options.seeds:
        results[seed] = run_seed(seed, options.work_dir / f"seed-{seed}")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        values = {e["name"]: round(100 * e["value"], 2) for e in results[seed]["report"]["entries"]}
        print(f"seed {seed}: {results[seed]['seconds']} s, {values}")


if __name__ == "__main__":
    main()
