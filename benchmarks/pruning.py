"""What a fine-tuned MiniLM keeps when most of its encoder is zero: criteria, with and without a teacher.

python benchmarks/pruning.py --data-dir DATA --work-dir pruning --seeds 0 1 2 --sparsities 0.8

DATA holds trec6/, sst2/ and banking77/, each with train, validation and test.parquet. Every arm starts from the same
fine-tuned model, which is also the teacher, and trains as long. "torch by hand" is `torch.nn.utils.prune` once before
that training, with its reparametrization. A finished run is not repeated, and several processes may share the work
folder (give each its own --datasets or --seeds).
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from distillation_quality import Data, make_cache, make_teacher, train
from torch import nn
from torch.nn.utils import prune
from transformers import PreTrainedModel, set_seed

from hf_shrink import PruningCallback, PruningConfig, TeacherCache
from hf_shrink.inputs import load_model
from hf_shrink.pruning.targets import find_targets

RESULTS = Path(__file__).parent / "results" / "pruning.json"
EPOCHS = {"trec6": 2, "sst2": 2, "banking77": 2}
RAMP = {"start_step": 0.05, "end_step": 0.6, "pruning_frequency": 10, "scope": "global"}
METHODS = {
    "magnitude, one shot": {"method": "magnitude", **RAMP, "schedule": "one_shot", "start_step": 0.0},
    "magnitude, cubic": {"method": "magnitude", **RAMP},
    "movement": {"method": "movement", **RAMP, "score_learning_rate": 0.01},
}
BY_HAND = "torch by hand, one shot"
LEARNING_RATE = 4e-4
IGNORE = ["re:.*classifier.*", "re:.*pooler.*"]


def prune_by_hand(model: PreTrainedModel, sparsity: float) -> list[nn.Module]:
    """What the tutorials do: masks on the same weights, once, by magnitude."""
    modules = list(find_targets(model, ["Linear"], IGNORE).values())
    prune.global_unstructured([(m, "weight") for m in modules], prune.L1Unstructured, amount=sparsity)
    return modules


def run(arm: str, guided: bool, sparsity: float, seed: int, data: Data, dense: Path, cache: TeacherCache) -> dict:
    """One pruned model: its accuracy, and the share of zeros in its encoder's linear weights as it is at the end."""
    set_seed(seed)
    model = load_model(dense)
    model.get_input_embeddings().requires_grad_(False)
    settings = {"seed": seed, "learning_rate": LEARNING_RATE, "num_train_epochs": EPOCHS[data.name]}
    if guided:
        settings["preset"] = "classification"
    callbacks, by_hand = [], []
    if arm == BY_HAND:
        by_hand = prune_by_hand(model, sparsity)
    elif arm != "dense":
        callbacks = [PruningCallback(PruningConfig(**METHODS[arm], final_sparsity=sparsity, ignore=IGNORE))]
    found = train(model, data, data.splits["train"], Path("out"), cache if guided else None, settings, callbacks)
    for module in by_hand:
        prune.remove(module, "weight")
    weights = [module.weight for module in find_targets(model, ["Linear"], IGNORE).values()]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    return {**found, "zeros": zeros}


def collect(work: Path) -> dict:
    """All finished runs: data set and sparsity, arm, seed."""
    results: dict = {"dense": {}, "cells": {}}
    for path in sorted(work.glob("*/teacher/accuracy.json")):
        results["dense"][path.parts[-3]] = json.loads(path.read_text())
    for path in sorted(work.glob("*/pruned/*/*/seed-*.json")):
        data, _, sparsity, arm, seed = path.relative_to(work).with_suffix("").parts
        cell = results["cells"].setdefault(f"{data}, {sparsity} %", {})
        cell.setdefault(arm, {})[seed.removeprefix("seed-")] = json.loads(path.read_text())
    return results


def summarize(results: dict) -> None:
    """Print accuracy over the seeds, and the share of the dense model's that is kept."""
    for cell, arms in results["cells"].items():
        dense = 100 * results["dense"][cell.split(",")[0]]["test"]
        for arm, seeds in arms.items():
            values = [100 * run["test"] for run in seeds.values()]
            error = f"± {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
            print(
                f"{cell:20} {arm:34} {mean(values):6.2f} {error:7} {100 * mean(values) / dense:6.1f} % of {dense:.2f}"
            )


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("pruning"))
    parser.add_argument("--datasets", nargs="+", default=list(EPOCHS))
    parser.add_argument("--arms", nargs="+", default=[*METHODS, BY_HAND, "dense"])
    parser.add_argument("--teacher", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.datasets:
        data, folder = Data.load(options.data_dir / name), options.work_dir / name
        make_teacher(data, folder / "teacher")
        cache = make_cache(data, folder / "teacher", folder / "cache")
        for seed, sparsity, arm, teacher in product(options.seeds, options.sparsities, options.arms, options.teacher):
            label = f"{arm}, distilled" if teacher == "yes" else arm
            path = folder / "pruned" / f"{100 * sparsity:g}" / label / f"seed-{seed}.json"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            found = run(arm, teacher == "yes", sparsity, seed, data, folder / "teacher", cache)
            path.write_text(json.dumps(found))
            print(name, sparsity, label, seed, path.read_text(), flush=True)
    results = collect(options.work_dir)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    summarize(results)


if __name__ == "__main__":
    main()
