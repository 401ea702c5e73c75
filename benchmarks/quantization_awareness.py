"""How much of what 2-bit weights cost a fine-tuned MiniLM a minute of training gets back.

python benchmarks/quantization_awareness.py --data-dir DATA --work-dir quantization-awareness --seeds 0 1 2

DATA holds trec6/, sst2/ and banking77/, each with train, validation and test.parquet. The float model is rounded to 2
bits as it is, or trained for it with itself as the teacher; both on the same grid, with the same modules in float
(embeddings and head). A finished run is not repeated. Seconds are those of `train()`, evaluation and choice included;
CPU seconds are summed over the threads, and tell more where the machine was busy.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from distillation_quality import Data, accuracy_of, make_teacher, make_trainer
from transformers import set_seed

from hf_shrink import QuantizationAwareCallback
from hf_shrink.inputs import load_model
from hf_shrink.quantization.fake_quantization import find_modules, put_on_grid
from hf_shrink.quantization.weight_grid import WeightGrid

RESULTS = Path(__file__).parent / "results" / "quantization_awareness.json"
BITS = 2
SETTINGS = {"max_steps": 80, "learning_rate": 2e-4, "alpha": 0.9, "disable_dropout": True}
EVALUATED = 256  # validation rows that decide which weights stay


def rounded(data: Data, dense: Path, group_size: int, work: Path) -> dict:
    """Accuracy after quantization without training."""
    model = load_model(dense)
    put_on_grid(find_modules(model, WeightGrid(BITS, group_size, symmetric=False)))
    return accuracy_of(make_trainer(model, data, data.splits["train"], work, None, SETTINGS), data)


def trained(data: Data, dense: Path, group_size: int, seed: int, work: Path) -> dict:
    """Accuracy after training for it, which weights stayed, and what it took."""
    set_seed(seed)
    model, teacher = load_model(dense), load_model(dense)
    model.get_input_embeddings().requires_grad_(False)
    rows = data.splits["validation"].select(range(EVALUATED))
    callback = QuantizationAwareCallback(
        f"int{BITS}", group_size=group_size, evaluate=lambda: trainer.evaluate(rows)["eval_loss"]
    )
    settings = {"seed": seed, **SETTINGS}
    trainer = make_trainer(model, data, data.splits["train"], work, teacher, settings, [callback])
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    took = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return {**accuracy_of(trainer, data), **took, "kept": callback.report["kept"]}


def collect(work: Path) -> dict:
    """All finished runs: data set and group size, arm or seed."""
    results: dict = {"settings": SETTINGS, "float": {}, "cells": {}}
    for path in sorted(work.glob("*/teacher/accuracy.json")):
        results["float"][path.parts[-3]] = json.loads(path.read_text())
    for path in sorted(work.glob("*/int2/*/*.json")):
        data, _, group_size, arm = path.relative_to(work).with_suffix("").parts
        results["cells"].setdefault(f"{data}, groups of {group_size}", {})[arm] = json.loads(path.read_text())
    return results


def summarize(results: dict) -> None:
    """Print the test accuracy of each cell, and the share of the loss that training got back."""
    for cell, arms in results["cells"].items():
        dense = 100 * results["float"][cell.split(",")[0]]["test"]
        after = 100 * arms["rounded"]["test"]
        runs = [run for arm, run in arms.items() if arm != "rounded"]
        values = [100 * run["test"] for run in runs]
        if not values:
            continue
        error = f"± {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
        print(
            f"{cell:28} float {dense:6.2f}  rounded {after:6.2f}  trained {mean(values):6.2f} {error:7} "
            f"recovered {100 * (mean(values) - after) / (dense - after):4.0f} %  "
            f"{mean(run['seconds'] for run in runs):4.0f} s, {mean(run['cpu_seconds'] for run in runs):4.0f} s of CPU"
        )


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("quantization-awareness"))
    parser.add_argument("--datasets", nargs="+", default=["trec6", "sst2", "banking77"])
    parser.add_argument("--group-sizes", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.datasets:
        data, folder = Data.load(options.data_dir / name), options.work_dir / name
        make_teacher(data, folder / "teacher")
        for group_size, arm in product(options.group_sizes, ["rounded", *options.seeds]):
            path = folder / "int2" / str(group_size) / f"{arm if arm == 'rounded' else f'seed-{arm}'}.json"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if arm == "rounded":
                found = rounded(data, folder / "teacher", group_size, path.parent)
            else:
                found = trained(data, folder / "teacher", group_size, arm, path.parent)
            path.write_text(json.dumps(found))
            print(name, group_size, arm, path.read_text(), flush=True)
    results = collect(options.work_dir)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    summarize(results)


if __name__ == "__main__":
    main()
