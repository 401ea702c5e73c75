"""What each quantizer writes: bytes, quality, agreement with the float model, and time, against PyTorch and by hand.

python benchmarks/quantization.py --data-dir DATA --sets sst2 banking77 wnut17 xquad_en digits8x8 bert-base --time
python benchmarks/quantization.py --sets stories260k --causal-lm FOLDER --time
python benchmarks/quantization.py --sets smollm2 --causal-lm FOLDER --time

DATA holds a folder a set, each with train, validation and test.parquet. MiniLM is fine-tuned once a set (for digits a
small ViT is trained, and "bert-base" is a random model of that shape, for its time alone); a language model is scored
on text that it wrote itself. Methods that read rows get 256 of the training split. Latencies are taken in turns, and
with --time those of all methods again; "generate" is one token of 48 that are generated greedily for one row. "by
hand" is the library's own call with its defaults, on the same float graph. Folders that are there are not made again.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from distillation_quality import Data, make_teacher
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    set_seed,
)

from hf_shrink import QUANTIZERS, quantize
from hf_shrink.cli.quickstart_stages import model_source
from hf_shrink.evaluation.chosen_metric import choose_metric
from hf_shrink.evaluation.latency import measure_latencies
from hf_shrink.evaluation.quality import predict
from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.inputs import (
    GraphModel,
    default_collator,
    load_model,
    load_processing_class,
    load_rows,
    tokenize_rows,
)
from hf_shrink.inputs.rows import row_batches
from hf_shrink.inputs.tasks import find_task
from hf_shrink.quantization.automatic import usable_methods
from hf_shrink.quantization.divergence import Divergence, answers_of, diverge
from hf_shrink.quantization.float_graph import export_float_graph, to_float

RESULTS = Path(__file__).parent / "results" / "quantization.json"
FLOAT = "PyTorch fp32"
GENERATORS = {"stories260k": 200, "smollm2": 24}  # and the texts that each writes to be calibrated or judged on
GENERATED = 48  # tokens
SHAPES = {"1x32": (1, 32, 60), "1x128": (1, 128, 40), "32x32": (32, 32, 12), "32x128": (32, 128, 6)}
PICTURES = {"1": (1, 1, 60), "32": (32, 1, 12)}
METRICS = {"wnut17": "seqeval_f1", "xquad_en": "agreement", **dict.fromkeys(GENERATORS, "perplexity")}
READ = {"token_classification": 128, "question_answering": 384}  # tokens
DIVERGENCE_ROWS = 256
LABELS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Bench:
    """One float model, and the rows that it is calibrated and judged on."""

    name: str
    folder: Path
    calibration: Dataset
    test: Dataset | None

    @property
    def metric(self) -> str:
        """Name in `METRICS`."""
        return METRICS.get(self.name, "accuracy")


def fine_tune(
    model: PreTrainedModel, rows: Dataset, collator: Any, folder: Path, processor: Any, **settings: Any
) -> None:
    """Train and save a model, once."""
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=32,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        **settings,
    )
    Trainer(model=model, args=args, train_dataset=rows, data_collator=collator).train()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def make_reader(task: str, data: Path, folder: Path) -> None:
    """MiniLM with a head for each token: of entities, or of an answer's ends."""
    train, tokenizer = load_rows(data / "train.parquet"), load_processing_class(model_source(None))
    labels = {}
    if task == "token_classification":
        names = dict(enumerate(train.features["ner_tags"].feature.names))
        labels = {"num_labels": len(names), "id2label": names, "label2id": {n: i for i, n in names.items()}}
    model = load_model(model_source(None), task=task, **labels)
    rows = tokenize_rows(train, tokenizer, task=task, max_length=READ[task])
    collator = default_collator(tokenizer, task)
    fine_tune(model, rows, collator, folder, tokenizer, num_train_epochs=3, learning_rate=2e-4)


def make_vit(data: Path, folder: Path) -> None:
    """A small ViT, from scratch."""
    train = load_rows(data / "train.parquet")
    names = dict(enumerate(train.features["label"].names))
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, image_size=32,
        patch_size=8, num_labels=len(names), id2label=names, label2id={n: i for i, n in names.items()},
    )  # fmt: skip
    rows = tokenize_rows(train, processor, task="image_classification")
    collator = default_collator(processor, "image_classification")
    model = ViTForImageClassification(config)
    fine_tune(model, rows, collator, folder, processor, num_train_epochs=20, learning_rate=5e-4)


MAKERS = {
    "wnut17": partial(make_reader, "token_classification"),
    "xquad_en": partial(make_reader, "question_answering"),
    "digits8x8": make_vit,
}


def make_bench(name: str, data: Path | None, work: Path, causal_lm: Path | None) -> Bench:
    """Train what is to be quantized, once, and read its rows."""
    set_seed(0)
    if name in GENERATORS:
        return _language_model(name, causal_lm, work)
    folder = work / name / "teacher"
    rows = data / ("banking77" if name == "bert-base" else name)
    if not (folder / "model.safetensors").exists():
        if name == "bert-base":
            BertForSequenceClassification(BertConfig(num_labels=77)).save_pretrained(folder)
            load_processing_class(model_source(None)).save_pretrained(folder)
        elif name in MAKERS:
            MAKERS[name](rows, folder)
        else:
            make_teacher(Data.load(rows), folder)
    test = None if name == "bert-base" else load_rows(rows / "test.parquet")
    return Bench(name, folder, load_rows(rows / "train.parquet"), test)


def _language_model(name: str, folder: Path, work: Path) -> Bench:
    written = work / name / "written.parquet"
    if not written.exists():
        written.parent.mkdir(parents=True, exist_ok=True)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        count = GENERATORS[name]
        start = torch.full((2 * count, 1), model.config.bos_token_id)
        tokens = model.generate(start, do_sample=True, max_new_tokens=200, pad_token_id=model.config.eos_token_id)
        Dataset.from_dict({"text": tokenizer.batch_decode(tokens, skip_special_tokens=True)}).to_parquet(written)
    rows = load_rows(written)
    half = len(rows) // 2
    return Bench(name, folder, rows.select(range(half)), rows.select(range(half, len(rows))))


def peers(bench: Bench, work: Path) -> Iterator[tuple[str, Any]]:
    """The plain things."""
    yield FLOAT, load_model(bench.folder)
    task = find_task(load_model(bench.folder))
    fast = torch.cpu._is_avx512_bf16_supported()  # without it a product takes thirty times as long as in fp32
    if fast and task != "image_classification":  # whose pixels come as fp32
        yield "PyTorch bf16", load_model(bench.folder).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to torchao
        yield "torch.ao dynamic", torch.ao.quantization.quantize_dynamic(load_model(bench.folder), {nn.Linear})
    folder = work / bench.name / "onnxruntime by hand"
    if not folder.exists():
        from onnxruntime.quantization import quantize_dynamic

        scratch = work / bench.name / "float"
        scratch.mkdir(exist_ok=True)
        folder.mkdir()
        quantize_dynamic(export_float_graph(to_float(load_model(bench.folder)), scratch, task), folder / "model.onnx")
        load_model(bench.folder).config.save_pretrained(folder)
    yield "onnxruntime by hand", folder


def make_all(bench: Bench, methods: list[str], work: Path) -> dict[str, float]:
    """Quantize with every method; how many seconds each took, None where its folder was there."""
    seconds = {}
    for method in methods:
        folder = work / bench.name / method
        if (folder / "quantization.json").exists():
            continue
        start = time.perf_counter()
        rows = {"calibration_dataset": bench.calibration} if QUANTIZERS[method].facts["calibrated"] else {}
        quantize(bench.folder, method, output_dir=folder, **rows)
        seconds[method] = time.perf_counter() - start
    return seconds


def read(bench: Bench) -> tuple[Dataset, Any, str]:
    """Test rows, what makes batches of them, and the task."""
    processor, task = load_processing_class(bench.folder), find_task(load_model(bench.folder))
    rows = tokenize_rows(bench.test, processor, task=task, max_length=READ.get(task, 128))
    if task == "causal_lm":
        rows = rows.map(lambda batch: {"labels": batch["input_ids"]}, batched=True)
    return rows, default_collator(processor, task), task


def divergence(model: Any, other: Any, rows: Dataset, collator: Any, task: str) -> Divergence:
    """How far another model's answers are from a model's; padding is left out."""
    total = Divergence()
    for batch in row_batches(rows.select(range(min(DIVERGENCE_ROWS, len(rows)))), collator):
        feed = {name: values for name, values in batch.items() if name not in LABELS}
        total += diverge(answers_of(model, feed, task), answers_of(other, feed, task), feed, task)
    return total


def qualities(bench: Bench, models: dict[str, Any], before: dict) -> dict[str, dict]:
    """Metric, agreement and KL divergence (nats a decision) of each model that was not judged yet."""
    new = [name for name in models if name != FLOAT and "value" not in before.get(name, {})]
    if bench.test is None or not new:
        return {}
    rows, collator, task = read(bench)
    original, judge = load_model(bench.folder), judge_of(bench, rows, collator, task)
    found = {}
    for name in (FLOAT, *new):
        model = load_model(models[name])
        apart = divergence(original, model, rows, collator, task)
        found[name] = {"kl": apart.mean, **judge(model, apart)}
    return found


def judge_of(bench: Bench, rows: Dataset, collator: Any, task: str) -> Callable[[Any, Divergence], dict[str, float]]:
    """What gives a model's metric and agreement on all rows; answers within a text have no other than agreement."""
    if bench.metric == "agreement":
        return lambda model, apart: {"value": apart.agreement, "agreement": apart.agreement}
    original = load_model(bench.folder)
    metric = choose_metric(bench.metric, task, num_labels=original.config.num_labels)
    expected = predict(original, rows, collator, task=task).choices

    def judge(model: Any, apart: Divergence) -> dict[str, float]:
        found = predict(model, rows, collator, task=task)
        return {
            "value": metric(found.predictions, found.references),
            "agreement": share(expected == found.choices, expected),
        }

    return judge


def share(equal: np.ndarray, choices: np.ndarray) -> float:
    """Of decisions that are equal; tags that do not count are -1 in both."""
    counted = choices >= 0
    return float(equal[counted].mean())


def shapes_of(bench: Bench) -> dict[str, tuple[int, int, int]]:
    """Rows, tokens a row and passes that are timed; a language model of some size reads one row at a time."""
    if bench.name == "digits8x8":
        return PICTURES
    return {name: shape for name, shape in SHAPES.items() if bench.name != "smollm2" or shape[0] == 1}


def latencies(bench: Bench, models: dict[str, Any], threads: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each model and shape, in turns."""
    loaded = [load_model(model) for model in models.values()]
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for shape, (rows, tokens, runs) in shapes_of(bench).items():
        measured = measure_latencies(
            loaded, batch_size=rows, sequence_length=tokens, threads=threads, runs=runs, warmup=3
        )
        for name, latency in zip(models, measured, strict=True):
            found[name][shape] = round(latency.p50_ms, 3)
    return found


def generation(bench: Bench, models: dict[str, Any], threads: int, rounds: int = 5) -> dict[str, float]:
    """Median milliseconds of a token that each language model generates, in turns."""
    if bench.name not in GENERATORS:
        return {}
    torch.set_num_threads(threads)
    loaded = {name: load_model(model) for name, model in models.items()}
    loaded = {n: m.with_threads(threads) if isinstance(m, GraphModel) else m for n, m in loaded.items()}
    # Not what torch.ao packs: transformers asks a model for its dtype, and it has no parameter left to tell it.
    loaded = {n: m for n, m in loaded.items() if n != "torch.ao dynamic"}
    start = torch.full((1, 1), load_model(bench.folder).config.bos_token_id)
    settings = {"min_new_tokens": GENERATED, "max_new_tokens": GENERATED, "do_sample": False}
    times: dict[str, list[float]] = {name: [] for name in loaded}
    for _ in range(rounds):
        for name, model in loaded.items():
            begun = time.perf_counter()
            model.generate(start, attention_mask=torch.ones_like(start), **settings)
            times[name].append(1e3 * (time.perf_counter() - begun) / GENERATED)
    return {name: round(float(np.median(values)), 3) for name, values in times.items()}


def run(bench: Bench, work: Path, options: argparse.Namespace, before: dict) -> dict:
    """Everything of one set."""
    task = find_task(load_model(bench.folder))
    methods = options.methods or usable_methods(task, calibrated=True)
    seconds = make_all(bench, methods, work)
    models = dict(peers(bench, work)) | {method: work / bench.name / method for method in methods}
    rows = dict(before.get("models", {}))
    for name, quality in qualities(bench, models, rows).items():
        rows[name] = {**rows.get(name, {}), **quality}
    for name, milliseconds in latencies(bench, models, options.threads).items() if options.time else ():
        rows.setdefault(name, {})["ms"] = milliseconds
    for name, milliseconds in generation(bench, models, options.threads).items() if options.time else ():
        rows[name]["ms"]["generate"] = milliseconds
    for name, model in models.items():
        place = model if isinstance(model, Path) else bench.folder if name == FLOAT else None
        rows.setdefault(name, {})["bytes"] = None if place is None else size_on_disk(place)
        rows[name]["seconds"] = round(seconds[name], 1) if name in seconds else rows[name].get("seconds")
    return {
        "rows": None if bench.test is None else len(bench.test),
        "metric": None if bench.test is None else bench.metric,
        "threads": options.threads,
        "models": rows,
    }


def results_so_far() -> dict:
    """What was measured before, of all sets."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def main() -> None:
    """Run what is asked for, and keep what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--work-dir", type=Path, default=Path("quantization"))
    parser.add_argument("--sets", nargs="+", default=["sst2", "banking77"])
    parser.add_argument("--methods", nargs="+", help="all that are usable here, if not given")
    parser.add_argument("--causal-lm", type=Path, help="folder of stories260k")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--time", action="store_true", help="take latencies")
    options = parser.parse_args()
    for name in options.sets:
        bench = make_bench(name, options.data_dir, options.work_dir, options.causal_lm)
        found = run(bench, options.work_dir, options, results_so_far().get(name, {}))
        results = {**results_so_far(), name: found}  # read again: another set may be done by now
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
