"""The tables of the README and the docs that are made and not written: python tools/readme.py rewrites them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median, stdev

from hf_shrink.dataset_distillation import SCORES, SELECTORS
from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.distillation import LOSSES
from hf_shrink.evaluation import METRICS
from hf_shrink.pruning import CRITERIA, STRUCTURES
from hf_shrink.pruning.criteria import CALIBRATED
from hf_shrink.quantization import QUANTIZERS
from hf_shrink.quantization.calibration import needs_rows
from hf_shrink.registry import Method

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DISTILLATION = ROOT / "docs" / "distillation.md"
PRUNING = ROOT / "docs" / "pruning.md"
QUALITY = ROOT / "benchmarks" / "results" / "distillation_quality.json"
STEP = ROOT / "benchmarks" / "results" / "distillation.json"
PRUNING_STEP = ROOT / "benchmarks" / "results" / "pruning_step.json"
QUICKSTART = ROOT / "benchmarks" / "results" / "quickstart.json"
PRUNED = ROOT / "benchmarks" / "results" / "pruning.json"
STRUCTURED = ROOT / "docs" / "structured_pruning.md"
SHAPED = ROOT / "benchmarks" / "results" / "structure.json"
QUANTIZATION = ROOT / "docs" / "quantization.md"
QUANTIZED = ROOT / "benchmarks" / "results" / "quantization.json"
DATASETS = ROOT / "docs" / "dataset_distillation.md"
SELECTED = ROOT / "benchmarks" / "results" / "selection.json"
SELECTION_SPEED = ROOT / "benchmarks" / "results" / "selection_speed.json"
DEDUPLICATION = ROOT / "benchmarks" / "results" / "deduplication.json"
PAGES = (README, DISTILLATION, PRUNING, STRUCTURED, QUANTIZATION, DATASETS)
REGISTRIES = {
    "distillation": LOSSES,
    "pruning": CRITERIA,
    "pruning, structure": STRUCTURES,
    "quantization": QUANTIZERS,
    "dataset distillation": SELECTORS,
    "dataset distillation, scores": SCORES,
    "dataset distillation, duplicates": DUPLICATE_METHODS,
}
READS = {
    "weights": "the weights",
    "noise": "a seed",
    "gradients": "gradients of the steps, or of labelled rows",
    "scores": "scores that are trained",
    "activations": "inputs over calibration rows",
    "hessian": "inputs over calibration rows",
}
FLOAT = "PyTorch fp32"  # the model that all others are held against
NUMBERS = {
    None: "as they are",
    "dynamic": "8 bits, range found as it runs",
    "block": "8 bits, a range for each block of a row",
    "static": "8 bits, range fixed before",
}
TITLES = {
    "teacher": "teacher (all-MiniLM-L6-v2, fine-tuned)",
    "student-labels-only": "the same student, labels alone",
    "student": "student, distilled",
    "student-int8": "student, distilled, int8",
}


def methods() -> str:
    """One row a registered method."""
    rows = ["| technique | method | what it does | source |", "|---|---|---|---|"]
    for technique, registry in REGISTRIES.items():
        rows += [f"| {technique} | `{m.name}` | {m.summary.rstrip('.')} | {_source(m)} |" for m in registry.values()]
    return "\n".join([*rows, "", f"Metrics by name: {', '.join(f'`{name}`' for name in METRICS)}."])


def quickstart() -> str:
    """What the quickstart measured, over the seeds of the committed runs."""
    runs = json.loads(QUICKSTART.read_text())
    reports = [run["report"] for run in runs.values()]
    seeds = f"{len(runs)} seeds, {reports[0]['rows']:,} test rows"
    header = ("model", f"accuracy, % ({seeds})", "keeps", "size", "parameters", "MACs", "p50", "faster")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _quickstart_rows(reports))])


def _quickstart_rows(reports: list[dict]) -> Iterator[list[str]]:
    for position, first in enumerate(reports[0]["entries"]):
        entries = [report["entries"][position] for report in reports]
        originals = [report["entries"][0] for report in reports]
        values = [100 * e["value"] for e in entries]
        kept = mean(e["value"] / o["value"] for e, o in zip(entries, originals, strict=True))
        faster = mean(o["latency"]["p50_ms"] / e["latency"]["p50_ms"] for e, o in zip(entries, originals, strict=True))
        yield [
            TITLES[first["name"]],
            f"{mean(values):.1f} ± {stdev(values):.1f}",
            f"{100 * kept:.1f} %",
            f"{first['size_bytes'] / 1e6:.1f} MB",
            f"{first['parameters'] / 1e6:.1f} M",
            f"{first['macs'] / 1e6:.0f} M",
            f"{mean(e['latency']['p50_ms'] for e in entries):.1f} ms",
            f"{faster:.1f}×",
        ]


def quality() -> str:
    """What distillation brought over labels alone, over the seeds of the committed runs."""
    found = json.loads(QUALITY.read_text())
    header = ("data, student", "teacher", "labels only", "`preset`", "gain of the preset")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _quality_rows(found))])


def _quality_rows(found: dict) -> Iterator[list[str]]:
    for cell, arms in found["cells"].items():
        teacher = 100 * found["teachers"][cell.split(",")[0]]["test"]
        plain, recipe = ({s: 100 * run["test"] for s, run in arms[a].items()} for a in ("labels only", "recipe"))
        gains = [recipe[seed] - plain[seed] for seed in plain]
        yield [
            cell,
            f"{teacher:.1f}",
            f"{mean(plain.values()):.1f}",
            f"{mean(recipe.values()):.1f} ({100 * mean(recipe.values()) / teacher:.1f} % of the teacher)",
            f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f} ({len(gains)} seeds)",
        ]


def criteria() -> str:
    """What each criterion reads, and where it can be used."""
    header = ("method", "it keeps", "reads", "used in")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _criteria_rows())])


def _criteria_rows() -> Iterator[list[str]]:
    for method in CRITERIA.values():
        reads = method.facts["reads"]
        places = ([] if reads in CALIBRATED else ["training"]) + ([] if reads == "scores" else ["`prune`"])
        yield [f"`{method.name}`", method.summary.removeprefix("Keep ").rstrip("."), READS[reads], ", ".join(places)]


def structures() -> str:
    """What users write for each structure."""
    header = ("structure", "what it does", "source")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _structure_rows())])


def _structure_rows() -> Iterator[list[str]]:
    for method in STRUCTURES.values():
        written, _, note = method.facts["form"].partition(" ")
        yield [f"`{written}` {note}".strip(), method.summary.rstrip("."), _source(method)]


def pruning() -> str:
    """What pruned models kept, over the seeds of the committed runs."""
    if not PRUNED.exists():
        return "No run is committed yet."
    found = json.loads(PRUNED.read_text())
    header = ("data, zeros", "arm", "accuracy, %", "of the dense model")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _pruning_rows(found))])


def _pruning_rows(found: dict) -> Iterator[list[str]]:
    for cell, arms in found["cells"].items():
        dense = 100 * found["dense"][cell.split(",")[0]]["test"]
        yield [cell, "the dense model that all start from", f"{dense:.1f}", "100.0 %"]
        for arm, seeds in arms.items():
            values = [100 * run["test"] for run in seeds.values()]
            name = "dense, trained on" + arm.removeprefix("dense") if arm.split(",")[0] == "dense" else arm
            yield [cell, name, _with_error(values), f"{100 * mean(values) / dense:.1f} %"]


def structure() -> str:
    """What models cut to a share of their MACs kept, and how much faster they are."""
    found = json.loads(SHAPED.read_text())
    header = ("data, MACs", "cut", "layers x FFN", "accuracy, %", "against dense", "bytes", "faster, 1 row", "16 rows")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _structure_results(found))])


def _structure_results(found: dict) -> Iterator[list[str]]:
    for cell, arms in found["cells"].items():
        dense = 100 * found["dense"][cell.split(",")[0]]["test"]
        for arm, seeds in arms.items():
            values, first = [100 * run["test"] for run in seeds.values()], next(iter(seeds.values()))
            speeds = [speed.get(arm) for speed in found["speedup"].get(cell, {}).values()] or [None, None]
            yield [
                cell,
                arm,
                f"{first['layers']} x {first['intermediate_size']}",
                _with_error(values),
                f"{mean(values) - dense:+.1f}",
                f"{100 * first['bytes']:.0f} %",
                *(f"{speed:.2f}×" if speed else "" for speed in speeds),
            ]


def quantizers() -> str:
    """What numbers each quantizer stores, and what it needs."""
    header = ("method", "weights", "embeddings", "activations", "reads rows", "extra", "source")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _quantizer_rows())])


def _quantizer_rows() -> Iterator[list[str]]:
    for method in QUANTIZERS.values():
        numbers = method.facts["format"]
        scales = f"{numbers.group_size} a scale" if numbers.group_size else "one scale an output"
        yield [
            f"`{method.name}`",
            f"{numbers.bits} bits, {scales}",
            f"{numbers.embedding_bits} bits",
            NUMBERS[numbers.activations],
            ("yes" if needs_rows(method) else "if given") if method.facts["calibrated"] else "no",
            f"`[{method.facts['extra']}]`" if method.facts["extra"] else "none",
            _source(method),
        ]


def quantization() -> str:
    """What every quantizer kept, and how large and how fast its models are."""
    return _quantized()


def quantization_minilm() -> str:
    """The same for one model and its data, which the README shows."""
    return _quantized("banking77")


def _quantized(*names: str) -> str:
    if not QUANTIZED.exists():
        return "No run is committed yet."
    found = json.loads(QUANTIZED.read_text())
    tables = [_quantized_table(name, found[name]) for name in names or found if name in found]
    return "\n\n".join(tables)


def _quantized_table(name: str, found: dict) -> str:
    models = found["models"]
    shapes = list(models[FLOAT].get("ms", {}))
    columns = [("size", _megabytes), ("made in", _seconds)]
    if found["metric"] is not None:
        perplexity = found["metric"] == "perplexity"
        title = found["metric"].replace("_", " ") + ("" if perplexity else ", %")
        columns[1:1] = [
            (
                f"{title} ({found['rows']:,} rows)",
                lambda m: _or_dash(m.get("value"), lambda x: f"{x:.2f}" if perplexity else f"{100 * x:.1f}"),
            ),
            ("agreement, %", lambda m: _or_dash(m.get("agreement"), lambda x: f"{100 * x:.1f}")),
            ("KL", lambda m: _or_dash(m.get("kl"), lambda x: f"{x:.2g}")),
        ]
    header = [name, *(title for title, _ in columns), *(f"faster, {_shape(shape)}" for shape in shapes)]
    lines = [_line(header), _line(["---"] * len(header))]
    for model, measured in models.items():
        title = f"`{model}`" if model in QUANTIZERS else model
        speeds = [_speed(models[FLOAT], measured, shape) for shape in shapes]
        lines.append(_line([title, *(cell(measured) for _, cell in columns), *speeds]))
    return "\n".join(lines)


def _speed(original: dict, measured: dict, shape: str) -> str:
    milliseconds = measured.get("ms", {}).get(shape)
    return _or_dash(milliseconds, lambda x: f"{original['ms'][shape] / x:.2f}×")


def _shape(shape: str) -> str:
    if shape == "generate":
        return "a token generated"
    rows, _, tokens = shape.partition("x")
    return f"{rows} × {tokens}" if tokens else f"{rows} pictures" if rows != "1" else "1 picture"


def _megabytes(model: dict) -> str:
    return _or_dash(model.get("bytes"), lambda x: f"{x / 1e6:.1f} MB")


def _seconds(model: dict) -> str:
    return _or_dash(model.get("seconds"), lambda x: f"{x:.0f} s")


def _or_dash(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


def _with_error(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f} (1 seed)"
    return f"{mean(values):.1f} ± {stdev(values) / len(values) ** 0.5:.2f} ({len(values)} seeds)"


def selectors() -> str:
    """What each selector keeps and reads."""
    header = ("method", "what it does", "reads", "options", "source")
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, _selector_rows())])


def _selector_rows() -> Iterator[list[str]]:
    for method in SELECTORS.values():
        score = f" (`{method.facts['score']}`)" if "score" in method.facts else ""
        options = ", ".join(f"`{name}={value!r}`" for name, value in method.options.items())
        reads = ", ".join(method.facts["reads"]).replace("difficulty", f"scores{score}")
        summary = method.summary.rstrip(".")
        yield [f"`{method.name}`", summary, reads or "nothing", options or "none", _source(method)]


def scores() -> str:
    """What each score tells of a row."""
    header = ("score", "what it is", "hard rows have", "source")
    rows = [[f"`{m.name}`", m.summary.rstrip("."), f"{m.facts['hard']} values", _source(m)] for m in SCORES.values()]
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def duplicates() -> str:
    """How each method finds duplicates."""
    header = ("method", "what it finds", "reads", "extra", "source")
    rows = [
        [
            f"`{m.name}`",
            m.summary.rstrip("."),
            m.facts["reads"],
            f"`[{m.facts['extra']}]`" if "extra" in m.facts else "none",
            _source(m),
        ]
        for m in DUPLICATE_METHODS.values()
    ]
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def selection() -> str:
    """Linear heads on what `auto` and stratified samples kept, over the seeds of the committed runs."""
    found = json.loads(SELECTED.read_text())["probes"]
    header = ("data", "all rows", "budget", "stratified sample", "`auto`", "gain", "it took")
    rows = [
        [name, f"{100 * cells['full']:.1f}", _share(budget), *_against_sample(arms)]
        for name, cells in found.items()
        for budget, arms in sorted((c for c in cells.items() if c[0] != "full"), key=lambda cell: float(cell[0]))
    ]
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def selected_alone() -> str:
    """What each method by itself gains over stratified samples, over the data sets of the committed runs."""
    found = json.loads(SELECTED.read_text())["probes"]
    budgets = sorted({budget for cells in found.values() for budget in cells if budget != "full"}, key=float)
    header = ("method", *map(_share, budgets))
    rows = []
    for method in (
        "auto",
        *sorted({m for cells in found.values() for m in cells[budgets[0]]} - {"auto", "stratified"}),
    ):
        gains = [[_gain(cells[budget], method) for cells in found.values()] for budget in budgets]
        rows.append([f"`{method}`", *(f"{mean(values):+.1f} (worst {min(values):+.1f})" for values in gains)])
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def _gain(arms: dict, method: str) -> float:
    chosen, plain = (mean(100 * run["accuracy"] for run in arms[arm].values()) for arm in (method, "stratified"))
    return chosen - plain


def finetuned() -> str:
    """Models fine-tuned on what `auto` and stratified samples kept."""
    found = json.loads(SELECTED.read_text())["finetuning"]
    header = ("data", "all rows", "budget", "stratified sample", "`auto`", "gain", "it took")
    rows = []
    for name, cells in found.items():
        whole = [100 * run["accuracy"] for run in cells.get("full", {}).get("full", {}).values()]
        for budget in sorted(set(cells) - {"full"}, key=float):
            full = f"{mean(whole):.1f}" if whole else "–"
            rows.append([name, full, _share(budget), *_against_sample(cells[budget])])
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def noisy() -> str:
    """Linear heads on rows of which some have a wrong label."""
    header = ("method", "accuracy, %", "wrong labels among the rows kept, %", "it took")
    rows = []
    for name, cells in json.loads(SELECTED.read_text())["noise"].items():
        for method, runs in cells["0.1"].items():
            values, wrong = ([100 * run[key] for run in runs.values()] for key in ("accuracy", "wrong"))
            rows.append([f"{name}, `{method}`", _with_error(values), f"{mean(wrong):.1f}", _taken(runs)])
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def selection_speed() -> str:
    """Selectors and duplicates against others in the same run."""
    found = json.loads(SELECTION_SPEED.read_text())
    header = ("task", "against", "faster", "memory", "result")
    rows = []
    for part, result in found.items():
        if isinstance(result, dict) and "rows" in result:
            task = f"{part.removesuffix('_large').replace('_', ' ')}, {result['rows']:,} to {result['count']:,} rows"
            rows += [[task, *cells] for cells in _speed_rows(result)]
    rows += _duplicate_rows(json.loads(DEDUPLICATION.read_text()))
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, rows)])


def _speed_rows(result: dict) -> Iterator[list[str]]:
    share = result.get("share_of_gap")
    kept = "the same picks" if result.get("identical_picks") else f"{100 * share:.1f} % of the gap" if share else "–"
    for peer, times in result["times_faster_than"].items():
        memory = f"{median(result['memory_of'][peer]):.2f} of its"
        yield [peer, f"{median(times):.1f}×", memory, kept]
    if not result["times_faster_than"]:
        (seconds,), (peak,) = (list(result[key].values()) for key in ("seconds", "peak_bytes"))
        yield ["–", f"{median(seconds):.1f} s", f"{median(peak) / 1e6:.0f} MB", "–"]


def _duplicate_rows(found: dict) -> Iterator[list[str]]:
    options, texts, vectors = found["options"], found["texts"]["seconds"], found["vectors"]["seconds"]
    task = f"MinHash, {options['texts']:,} texts"
    for peer in ("rensa, deduplicator", "rensa, batch"):
        times = [run[peer] / run["hf_shrink minhash"] for run in texts]
        yield [task, peer, f"{median(times):.2f}×", "–", "pairs are verified here"]
    times = [run["SemHash"] / run["hf_shrink semantic"] for run in vectors]
    missed = f"{found['missed']['hf_shrink semantic']} pairs missed, there {found['missed']['SemHash']}"
    task = f"near embeddings, {options['vectors']:,} x {options['width']}"
    yield [task, "SemHash", f"{median(times):.1f}×", "–", missed]


def _against_sample(arms: dict) -> list[str]:
    chosen, plain = ({seed: 100 * run["accuracy"] for seed, run in arms[a].items()} for a in ("auto", "stratified"))
    gains = [chosen[seed] - plain[seed] for seed in chosen]
    return [
        f"{mean(plain.values()):.1f}",
        f"{mean(chosen.values()):.1f}",
        f"{mean(gains):+.1f} ± {stdev(gains) / len(gains) ** 0.5:.1f} ({len(gains)} seeds)",
        _taken(arms["auto"]),
    ]


def _taken(runs: dict) -> str:
    return ", ".join(f"`{name}`" for name in sorted({run["selector"] for run in runs.values()}))


def _share(budget: str) -> str:
    return f"{100 * float(budget):g} %"


def step() -> str:
    """What a training step costs against others in the same run."""
    return _ratios(STEP)


def pruning_step() -> str:
    """What the pruning callback adds to a training step."""
    return _ratios(PRUNING_STEP)


def _ratios(results: Path) -> str:
    ratios = json.loads(results.read_text())["ratios"]
    rows = [[name, f"{median(v):.2f}×", f"{min(v):.2f} to {max(v):.2f}"] for name, v in ratios.items()]
    return "\n".join([_line(("step", "ratio, median", "range")), _line(["---"] * 3), *map(_line, rows)])


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _source(method: Method) -> str:
    paper = method.paper
    address = f"https://arxiv.org/abs/{paper.removeprefix('arXiv:')}" if paper.startswith("arXiv:") else paper
    kind = paper if paper.startswith("arXiv:") else "paper" if "doi.org" in paper else "documentation"
    return f"[{kind}]({address})"


TABLES = (
    *(methods, quickstart, quality, criteria, structures, pruning, structure, step, pruning_step, quantizers),
    *(quantization, quantization_minilm),
    *(selectors, scores, duplicates, selection, selected_alone, finetuned, noisy, selection_speed),
)


def rendered(text: str) -> str:
    """A page with every made table as it should be."""
    for make in TABLES:
        name = make.__name__
        if f"<!-- {name} -->" not in text:
            continue
        pattern = rf"(?<=<!-- {name} -->\n)(.*?)(?=<!-- /{name} -->)"
        before, _, after = re.split(pattern, text, flags=re.S)
        text = f"{before}{make()}\n{after}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text()))
