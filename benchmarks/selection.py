"""Does choosing rows pay? `auto` and single methods against stratified samples, on five data sets and four budgets.

python benchmarks/selection.py --data-dir DATA --work-dir selection --parts probes
python benchmarks/selection.py --data-dir DATA --work-dir selection --parts finetuning noise

DATA holds trec6/, sst2/, banking77/, clinc150/ and snips/, each with train and test.parquet. Rows that stand in a
test set, and duplicates, are left out first, for all arms. Embeddings and every score are of a MiniLM that has not
seen the task; `probes` are linear heads on its embeddings, `finetuning` trains all weights. Accuracy is of the
official test rows, which no arm has seen. What was measured before is not measured again. Processes that run at the
same time need a file each (`--results`).
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
from datasets import ClassLabel, Dataset
from sklearn.linear_model import LogisticRegression
from transformers import Trainer, TrainingArguments, set_seed

from hf_shrink.dataset_distillation import DatasetReport, distill_dataset, encode
from hf_shrink.dataset_distillation.preparation import Encoding, prepare
from hf_shrink.evaluation.environment import bf16_is_fast, find_environment
from hf_shrink.inputs import (
    default_collator,
    find_columns,
    load_model,
    load_processing_class,
    load_rows,
    tokenize_rows,
)
from hf_shrink.inputs.packaged import packaged_minilm
from hf_shrink.versions import length_grouping

RESULTS = Path(__file__).parent / "results" / "selection.json"
SETS = ("trec6", "sst2", "banking77", "clinc150", "snips")
BUDGETS = (0.01, 0.05, 0.1, 0.3)
PROBED = (
    "auto",
    "stratified",
    "random",
    "kmeans",
    "facility_location",
    "herding",
    "graph_cut",
    "ccs",
    "k_center",
    "el2n",
)
FINETUNED = (("banking77", 0.05), ("banking77", 0.15), ("trec6", 0.1), ("sst2", 0.05))
ARMS = ("auto", "stratified")
STEPS = 400  # optimizer steps of a fine-tuning run, at least
EPOCHS = 14  # of a run on few rows; all rows get five
TASK = "single_label_classification"


class Data:
    """One data set: clean training rows and test rows, with embeddings."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.name = folder.name
        rows, self.test = (load_rows(folder / f"{split}.parquet") for split in ("train", "test"))
        columns = find_columns(rows)
        kept = prepare(rows, columns, Encoding(wanted=False), exclude=self.test, duplicates="exact").alive
        self.rows = rows.select(kept).flatten_indices()
        vectors = {
            "train": encode(self.rows, packaged_minilm(), output_dir=work / self.name / "train"),
            "test": encode(self.test, packaged_minilm(), output_dir=work / self.name / "test"),
        }
        self.train_x, self.test_x = (np.asarray(v, dtype=np.float32) for v in vectors.values())
        self.test_y = np.asarray(self.test["label"])


def probe(data: Data, small: Dataset) -> float:
    """Accuracy on test rows of a linear head that learned some rows."""
    head = LogisticRegression(C=10.0, max_iter=200).fit(data.train_x[small["source_index"]], small["label"])
    return float((head.predict(data.test_x) == data.test_y).mean())


def choose(data: Data, rows: Dataset, budget: float, method: str, seed: int) -> tuple[Dataset, str]:
    """The rows that a method keeps, and the method that chose them."""
    classes = rows.features["label"].num_classes
    count = max(classes, round(budget * len(rows)))
    small = distill_dataset(
        rows, count, method=method, embeddings=data.train_x, duplicates=None, curve=False, seed=seed
    )
    return small, DatasetReport.of(small).selector


def finetune(data: Data, rows: Dataset, work: Path, seed: int, *, steps: int) -> float:
    """Accuracy on test rows of a MiniLM all of whose weights learned some rows."""
    set_seed(seed)
    tokenizer = load_processing_class(packaged_minilm())
    names = dict(enumerate(data.test.features["label"].names))
    labels = {"num_labels": len(names), "id2label": names, "label2id": {n: i for i, n in names.items()}}
    model = load_model(packaged_minilm(), task=TASK, **labels)
    train, test = (
        tokenize_rows(part.select_columns(["text", "label"]), tokenizer, task=TASK, max_length=64)
        for part in (rows, data.test)
    )
    args = TrainingArguments(
        output_dir=str(work / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        learning_rate=3e-4,
        warmup_steps=steps // 10,
        weight_decay=0.01,
        bf16=bf16_is_fast(),
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        **length_grouping(),
    )
    collator = default_collator(tokenizer, TASK)
    trainer = Trainer(model=model, args=args, train_dataset=train, data_collator=collator)
    trainer.train()
    found = trainer.predict(test)  # with rows of one length together, and so in an order of its own
    return float((found.predictions.argmax(axis=1) == found.label_ids).mean())


def flipped(rows: Dataset, share: float, seed: int) -> Dataset:
    """Rows of which a share, by lot, has a label of another class."""
    generator = np.random.default_rng([seed, 1])
    labels = np.asarray(rows["label"])
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    classes = rows.features["label"].num_classes
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    feature: ClassLabel = rows.features["label"]
    return rows.remove_columns("label").add_column("label", labels.tolist(), feature=feature)


def run_probes(data: Data, seeds: list[int]) -> None:
    """Linear heads on every budget."""
    full = LogisticRegression(C=10.0, max_iter=200).fit(data.train_x, data.rows["label"])
    note(["probes", data.name, "full"], float((full.predict(data.test_x) == data.test_y).mean()))
    for budget in BUDGETS:
        for method in PROBED:
            for seed in seeds:
                key = ["probes", data.name, f"{budget:g}", method, str(seed)]
                if known(key) is None:
                    small, selector = choose(data, data.rows, budget, method, seed)
                    note(key, {"accuracy": probe(data, small), "selector": selector, "rows": len(small)})
        print(data.name, budget, {m: f"{100 * mean_of('probes', data.name, f'{budget:g}', m):.1f}" for m in PROBED})


def run_finetuning(data: Data, seeds: list[int], work: Path) -> None:
    """MiniLM trained on few rows, and on all."""
    budgets = [budget for name, budget in FINETUNED if name == data.name]
    cells = [(f"{budget:g}", method, seed) for budget in budgets for method in ARMS for seed in seeds]
    cells += [("full", "full", seed) for seed in seeds[:1]] if data.name == "banking77" else []
    for budget, method, seed in cells:
        key = ["finetuning", data.name, budget, method, str(seed)]
        if known(key) is not None:
            continue
        if budget == "full":
            small, selector, steps = data.rows, "full", 5 * len(data.rows) // 16
        else:
            small, selector = choose(data, data.rows, float(budget), method, seed)
            steps = max(STEPS, EPOCHS * len(small) // 16)
        accuracy = finetune(data, small, work, seed, steps=steps)
        note(key, {"accuracy": accuracy, "selector": selector, "rows": len(small)})
        print(*key, selector, f"{100 * accuracy:.2f}", flush=True)


def run_noise(data: Data, seeds: list[int]) -> None:
    """Linear heads on a tenth of rows of which a fifth has a wrong label."""
    for method in ("auto", "stratified", "random"):
        for seed in seeds:
            key = ["noise", data.name, "0.1", method, str(seed)]
            if known(key) is None:
                rows = flipped(data.rows, 0.2, seed)
                small, selector = choose(data, rows, 0.1, method, seed)
                truth = np.asarray(data.rows["label"])[small["source_index"]]
                wrong = float((truth != np.asarray(small["label"])).mean())
                note(key, {"accuracy": probe(data, small), "selector": selector, "wrong": wrong})
        print(data.name, "20 % flipped", method, f"{100 * mean_of('noise', data.name, '0.1', method):.1f}")


def results() -> dict:
    """What is there."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def known(key: list[str]) -> dict | None:
    """A value measured before."""
    found: dict | None = results()
    for part in key:
        found = (found or {}).get(part)
    return found


def note(key: list[str], value: object) -> None:
    """Write a value."""
    found = results()
    found["environment"] = vars(find_environment())
    place = found
    for part in key[:-1]:
        place = place.setdefault(part, {})
    place[key[-1]] = value
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def mean_of(*key: str) -> float:
    """Mean accuracy over the seeds of a cell."""
    return mean(run["accuracy"] for run in (known(list(key)) or {}).values())


def main() -> None:
    """Run the parts asked for."""
    global RESULTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "selection")
    parser.add_argument("--datasets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--parts", nargs="+", default=["probes"], choices=("probes", "finetuning", "noise"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    RESULTS = options.results
    for name in options.datasets:
        data = Data(options.data_dir / name, options.work_dir)
        if "probes" in options.parts:
            run_probes(data, options.seeds)
        if "finetuning" in options.parts:
            run_finetuning(data, options.seeds, options.work_dir)
        if "noise" in options.parts and name == "banking77":
            run_noise(data, options.seeds)


if __name__ == "__main__":
    main()
