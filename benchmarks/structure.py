"""What a fine-tuned MiniLM keeps when it is cut to a share of its multiply-accumulates, and how much faster it gets.

python benchmarks/structure.py --data-dir DATA --work-dir structure --seeds 0 1 2 --shares 0.7 0.5 --steps 0 500

DATA holds sst2/ and banking77/, each with train, validation and test.parquet. Every model is cut with 2,000 rows of
the training split, trained by the dense model where there are steps, saved and loaded: by stock transformers, but for
the uneven ones, which have a modelling file beside their weights. With --time latencies are taken, in turns with the
dense model's. "Torch-Pruning" (pip install torch-pruning) cuts the feed-forward blocks to the same width by the group
norm. "vocabulary" keeps the tokens of the training split and all else. A finished run is not repeated, and several
processes may share the work folder (give each its own --datasets or --seeds).
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from distillation_quality import TASK, Data, accuracy_of, make_cache, make_teacher, make_trainer
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed

from hf_shrink import TeacherCache, prune, prune_vocabulary, save_pruned, vocabulary_report
from hf_shrink.evaluation.latency import measure_latencies
from hf_shrink.evaluation.macs import count_macs
from hf_shrink.evaluation.size import count_parameters, size_on_disk
from hf_shrink.inputs import default_collator, load_model, load_rows
from hf_shrink.pruning.free_shapes import RECORD

RESULTS = Path(__file__).parent / "results" / "structure.json"
ROWS = 2000
LEARNING_RATE = 4e-4
LENGTH = 32  # tokens of the row that is timed and counted
ARMS = {
    "combined": {},
    "neurons": {"structure": "neurons"},
    "layers": {"structure": "layers"},
    "neurons, not reconstructed": {"structure": "neurons", "reconstruct": False},
    "neurons by lot": {"structure": "neurons", "method": "random", "reconstruct": False},
    "heads and neurons, uneven": {"structure": ["heads", "neurons"], "uniform": False},
}
PEER = "neurons, Torch-Pruning"
VOCABULARY = "vocabulary"


def cut(arm: str, share: float, seed: int, data: Data, dense: PreTrainedModel) -> PreTrainedModel:
    """The model of one arm."""
    if arm == PEER:
        return cut_by_torch_pruning(dense, share)
    return prune(
        dense,
        constraints={"macs": share},
        calibration_dataset=data.splits["train"],
        calibration_size=ROWS,
        processing_class=data.tokenizer,
        data_collator=default_collator(data.tokenizer, TASK),
        sequence_length=LENGTH,
        seed=seed,
        **ARMS[arm],
    )


def cut_by_torch_pruning(dense: PreTrainedModel, share: float) -> PreTrainedModel:
    """Feed-forward blocks cut by Torch-Pruning's group norm until the share of MACs is met."""
    import torch_pruning

    model = load_model(dense.config.name_or_path)
    inputs = model.dummy_inputs
    layers = model.bert.encoder.layer
    whole, full = count_macs(model, sequence_length=LENGTH), model.config.intermediate_size
    per_neuron = len(layers) * 2 * model.config.hidden_size * LENGTH
    width = int((full - whole * (1 - share) / per_neuron) // 8 * 8)
    cuttable = [layer.intermediate.dense for layer in layers]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.0,
        pruning_ratio_dict=dict.fromkeys(cuttable, 1 - width / full),
        # A module that is ignored is with all that is in it.
        ignored_layers=[m for m in model.modules() if not list(m.children()) and m not in cuttable],
        round_to=8,
    )
    pruner.step()
    model.config.intermediate_size = layers[0].intermediate.dense.out_features
    return model.eval()


def run(
    arm: str, share: float, steps: int, seed: int, data: Data, dense: Path, cache: TeacherCache, out: Path
) -> None:
    """One model, saved, and its accuracy beside it."""
    set_seed(seed)
    smaller = cut(arm, share, seed, data, load_model(dense))
    settings = {"seed": seed, "learning_rate": LEARNING_RATE, "max_steps": steps or 1}
    if steps:
        smaller.get_input_embeddings().requires_grad_(False)
        guided = {**settings, "preset": "classification"}
        make_trainer(smaller, data, data.splits["train"], out, cache, guided).train()
    layout = "native" if ARMS.get(arm, {}).get("uniform", True) else "remote"
    save_pruned(smaller.requires_grad_(True), out, layout)
    loaded = load_model(out, trust_remote_code=layout == "remote")
    accuracy = accuracy_of(make_trainer(loaded, data, data.splits["train"], out, None, settings), data)
    (out / "accuracy.json").write_text(json.dumps(accuracy))


def run_vocabulary(rows: Path, data: Data, dense: Path, out: Path) -> None:
    """The dense model with fewer tokens, saved, and its accuracy beside it."""
    corpus = load_rows(rows / "train.parquet")
    smaller, tokenizer = prune_vocabulary(load_model(dense), data.tokenizer, corpus)
    smaller.save_pretrained(out)
    found = vocabulary_report(data.tokenizer, tokenizer, load_rows(rows / "test.parquet"))
    loaded, own = AutoModelForSequenceClassification.from_pretrained(out), Data.load(rows, tokenizer)
    accuracy = accuracy_of(make_trainer(loaded, own, own.splits["train"], out, None, {"max_steps": 1}), own)
    (out / "accuracy.json").write_text(json.dumps({**accuracy, "vocabulary": found.to_dict()}))


def costs(folder: Path, dense: Path) -> dict:
    """What a saved model costs, as a share of the dense one."""
    models = [load_model(place, trust_remote_code=True) for place in (folder, dense)]
    macs = [count_macs(model, sequence_length=LENGTH) for model in models]
    sizes = [size_on_disk(place) for place in (folder, dense)]
    config = models[0].config
    return {
        "macs": macs[0] / macs[1],
        "parameters": count_parameters(models[0]) / count_parameters(models[1]),
        "bytes": sizes[0] / sizes[1],
        "layers": config.num_hidden_layers,
        "intermediate_size": "free" if vars(config).get(RECORD) else config.intermediate_size,
    }


def speedups(folders: dict[str, Path], dense: Path, batch_size: int) -> dict[str, float]:
    """How many times faster than the dense model each is, median against median, in turns, on one thread."""
    models = [load_model(place, trust_remote_code=True) for place in (dense, *folders.values())]
    shape = {"batch_size": batch_size, "sequence_length": LENGTH, "threads": 1}
    first, *others = (latency.p50_ms for latency in measure_latencies(models, **shape, runs=60))
    return {name: first / other for name, other in zip(folders, others, strict=True)}


def collect(work: Path, *, time: bool, before: dict) -> dict:
    """All finished runs: data set and share, arm with steps, seed."""
    results: dict = {"dense": {}, "cells": {}, "speedup": before.get("speedup", {})}
    for stamp in sorted(work.glob("*/teacher/accuracy.json")):
        results["dense"][stamp.parts[-3]] = json.loads(stamp.read_text())
    for stamp in sorted(work.glob("*/structure/*/*/seed-*/accuracy.json")):
        data, _, share, arm, seed, _ = stamp.relative_to(work).parts
        cell = results["cells"].setdefault(f"{data}, {share} %", {})
        found = {**json.loads(stamp.read_text()), **costs(stamp.parent, work / data / "teacher")}
        cell.setdefault(arm, {})[seed.removeprefix("seed-")] = found
    for cell, arms in results["cells"].items() if time else ():
        data, share = cell.removesuffix(" %").split(", ")
        folders = {arm: work / data / "structure" / share / arm / f"seed-{min(seeds)}" for arm, seeds in arms.items()}
        for batch_size in (1, 16):
            results["speedup"].setdefault(cell, {})[f"batch {batch_size}"] = speedups(
                folders, work / data / "teacher", batch_size
            )
    return results


def summarize(results: dict) -> None:
    """Print accuracy over the seeds, and what is lost of the dense model's."""
    for cell, arms in results["cells"].items():
        dense = 100 * results["dense"][cell.split(",")[0]]["test"]
        for arm, seeds in arms.items():
            values = [100 * found["test"] for found in seeds.values()]
            error = f"± {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
            first = next(iter(seeds.values()))
            speed = [found.get(arm) for found in results["speedup"].get(cell, {}).values()]
            shape = "{layers} x {intermediate_size}, macs {macs:.3f}, bytes {bytes:.3f}".format(**first)
            print(f"{cell:18} {arm:44} {mean(values):6.2f} {error:7} {mean(values) - dense:+6.2f}  {shape}  {speed}")


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("structure"))
    parser.add_argument("--datasets", nargs="+", default=["sst2", "banking77"])
    parser.add_argument("--arms", nargs="+", default=[*ARMS, PEER])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.7, 0.5])
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--time", action="store_true", help="measure the latencies of what is there")
    options = parser.parse_args()
    for name in options.datasets:
        data, folder = Data.load(options.data_dir / name), options.work_dir / name
        make_teacher(data, folder / "teacher")
        cache = make_cache(data, folder / "teacher", folder / "cache")
        out = folder / "structure" / "100" / VOCABULARY / "seed-0"
        if not (out / "accuracy.json").exists():  # nothing in it is left to chance
            run_vocabulary(options.data_dir / name, data, folder / "teacher", out)
        for seed, share, arm, steps in product(options.seeds, options.shares, options.arms, options.steps):
            label = f"{arm}, {steps} steps" if steps else arm
            out = folder / "structure" / f"{100 * share:g}" / label / f"seed-{seed}"
            if not (out / "accuracy.json").exists():
                run(arm, share, steps, seed, data, folder / "teacher", cache, out)
                print(name, share, label, seed, (out / "accuracy.json").read_text(), flush=True)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = collect(options.work_dir, time=options.time, before=before)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    summarize(results)


if __name__ == "__main__":
    main()
