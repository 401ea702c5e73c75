"""One call for all quantizers: check, write beside the target, prove, move."""

import contextlib
import copy
import difflib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import PushToHubMixin

from hf_shrink.errors import ShrinkError, require
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.inputs.calibration_rows import RowOptions
from hf_shrink.inputs.models import base_folder, load_model, load_processing_class, model_name
from hf_shrink.inputs.tasks import PROBLEM_TYPES, find_task, inner_model
from hf_shrink.quantization.artifact import RECORD, QuantizedArtifact
from hf_shrink.quantization.attempts import Attempt, check_goal, keep_accuracy
from hf_shrink.quantization.automatic import cheaper_methods, choose_method, usable_methods
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.calibration import require_calibration
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.given_rows import GivenRows
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.output_folder import beside, check_target, move
from hf_shrink.quantization.proof import prove
from hf_shrink.quantization.recipe import recipe_hash
from hf_shrink.quantization.sensitivity import read_map
from hf_shrink.registry import Method

LIBRARIES = ("hf_shrink", "torch", "transformers", "onnxruntime")


def quantize(
    model: PreTrainedModel | str | Path,
    method: str | Callable[..., Made] = "onnx-int8",
    *,
    output_dir: str | Path,
    processing_class: Any = None,
    task: str | None = None,
    calibration_dataset: Any = None,
    calibration_size: int = 256,
    evaluation_dataset: Any = None,
    metric: Any = None,
    max_drop: float | None = None,
    sensitivity: Any = None,
    ignore: Sequence[str] | None = None,
    seed: int = 0,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
    **options: Any,
) -> QuantizedArtifact:
    """Write a quantized copy of a model, and prove that it loads and answers as the model does.

    Args:
        model: A float model in any float dtype, its folder or its Hub id. An instance stays as it is, mode included.
        method: Name in `QUANTIZERS`, "auto", which takes the one that serves best here and records why, or a function
            of the same signature.
        output_dir: New or empty folder. It gets the model in the layout of the runtime's stock class, its config, the
            tokenizer, and `quantization.json` with the method, its options, the versions and the proof.
        processing_class: Tokenizer or processor to save beside it; by default the one that lies beside `model`. A
            model made in memory has none: without this argument the folder then has none either.
        task: Name in `TASKS`, where the model's class does not tell.
        calibration_dataset: Rows for methods that find ranges on some: a `Dataset`, or a path or Hub id. Labels are
            not read; where there are classes, each keeps its share.
        calibration_size: Rows to draw of it.
        evaluation_dataset: Rows to measure the artifact on, in its own runtime, against the float model.
        metric: What is measured: "agreement" with the float model's decisions (the default, without labels), "kl", or
            what `compare` takes.
        max_drop: How much may be lost: of the agreement or of a metric's own unit, so that a point of accuracy is
            0.01. As few modules as possible then stay in float, the most sensitive first; where that is not enough,
            the best artifact is kept with a warning, and its record says so.
        sensitivity: What `quantization_sensitivity` made of this model and method, or its file; None measures it where
            it is needed.
        ignore: Full names of modules that stay in float, such as "bert.encoder.layer.0.output.dense".
        seed: Of the rows that are drawn.
        text_column: The text's column in both datasets, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None and needed.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        **options: Of the method, such as `group_size` of "onnx-int4".

    Returns:
        The artifact. Where the input is refused, or the result does not load or answer as the model, there is an
        error, and `output_dir` is as it was.
    """
    chosen, target = None if method == "auto" else _resolve(method, options), check_target(output_dir)
    _check_processing_class(processing_class)
    check_goal(max_drop, metric, evaluation_dataset)
    loaded = _check_float(load_model(model, task=task))
    found = find_task(loaded, task)
    facts: dict[str, Any] = {}
    if chosen is None:
        preference = choose_method(found, calibrated=calibration_dataset is not None)
        chosen, facts = _resolve(preference.method, options), {"chosen_because": preference.reason}
    _check_task(chosen, found)
    require_calibration(chosen, calibration_dataset, usable_methods(found, calibrated=False))
    float_model = to_float(copy.deepcopy(loaded) if loaded is model else loaded)
    _describe(float_model, task)
    kept, known = _check_ignore(float_model, ignore or ()), read_map(sensitivity, float_model)
    reading = RowOptions(None, found, processing_class, text_column, label_column, max_length=max_length, seed=seed)
    rows = GivenRows(float_model, model, reading, calibration_dataset, calibration_size, evaluation_dataset)
    rows.calibration(chosen)  # rows that cannot be read are refused before any work
    measure = rows.measure(metric)
    with _stages(chosen) as step, beside(target) as work:
        job = Job(float_model, found, work / "artifact", step, kept)
        reader = _find_processing_class(model) if processing_class is None else processing_class
        make = partial(_attempt, job, rows, options, reader)
        if measure is None:
            attempt = make(chosen, kept)
        else:
            methods = cheaper_methods(chosen, float_model, found) if method == "auto" else [chosen]
            attempt, facts["max_drop"] = keep_accuracy(methods, make, job, rows.sensitive, measure, max_drop, known)
        step("prove")
        record = _record(attempt, model_name(model), facts)
        folder = attempt.job.folder
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        move(folder, target, last=RECORD)
    return QuantizedArtifact.from_pretrained(target)


def _attempt(
    job: Job, rows: GivenRows, options: Mapping[str, Any], reader: Any, method: Method, ignore: tuple[str, ...]
) -> Attempt:
    """Make one artifact, complete but for its proof, in a folder of its own beside those of earlier attempts."""
    calibration = rows.calibration(method)
    folder = Path(tempfile.mkdtemp(dir=job.folder.parent, prefix="artifact-"))
    own = replace(job, folder=folder, ignore=ignore, calibration=calibration.batches)
    made = method.function(own, **{name: value for name, value in options.items() if name in method.options})
    _complete(own, reader)
    return Attempt(method, own, made, calibration.record)


def _resolve(method: str | Callable[..., Made], options: dict[str, Any]) -> Method:
    chosen = Method(method.__name__, method, "") if callable(method) else QUANTIZERS[method]
    for library in chosen.facts.get("libraries", ()):
        require(library, extra=chosen.facts["extra"])
    if unknown := sorted(set(options) - set(chosen.options)):
        raise ShrinkError(
            f"`{unknown[0]}` must be an argument of quantize() or an option of {chosen.name}, which has "
            f"{sorted(chosen.options) or 'none'}. Leave it out."
        )
    return chosen


def _check_task(method: Method, task: str) -> None:
    fitting = method.facts.get("tasks", (task,))
    if task not in fitting:
        raise ShrinkError(
            f"`task` must be one of {list(fitting)} for {method.name}, got {task!r}. "
            "Quantize a model for one of these, or choose another method."
        )


def _check_ignore(model: PreTrainedModel, ignore: Sequence[str]) -> tuple[str, ...]:
    known = {name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))}
    if isinstance(ignore, str) or (unknown := [name for name in ignore if name not in known]):
        given = repr(ignore) if isinstance(ignore, str) else repr(unknown[0])
        close = difflib.get_close_matches(given.strip("'"), known, n=1) or sorted(known)[:1]
        raise ShrinkError(
            f"`ignore` must list modules with weights by their full names, got {given}. One of them is {close[0]!r}."
        )
    return tuple(sorted(set(ignore)))


def _check_processing_class(processing_class: Any) -> None:
    if processing_class is not None and not isinstance(processing_class, PushToHubMixin):
        raise ShrinkError(
            f"`processing_class` must be a tokenizer or processor, got {type(processing_class).__name__}. "
            "Load it with AutoTokenizer.from_pretrained()."
        )


def _check_float(model: Any) -> PreTrainedModel:
    if inner_model(model) is not model:
        raise ShrinkError("`model` must be whole, got one with a PEFT adapter. Give model.merge_and_unload().")
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a float transformers model, got {type(model).__name__}. Give the model it was made from."
        )
    packed = next((name for name, p in model.named_parameters() if p.dtype.itemsize < 2), None)
    if packed is not None or model.config.to_dict().get("quantization_config") is not None:
        raise ShrinkError(
            f"`model` must be a float model, but {type(model).__name__} is quantized already. "
            "Give the model it was made from."
        )
    return model


def _find_processing_class(model: Any) -> Any:
    if base_folder(model) is None:
        return None
    try:
        return load_processing_class(model)
    except ShrinkError as error:
        warnings.warn(f"The artifact is saved without a tokenizer. {error}", stacklevel=3)
        return None


def _describe(model: PreTrainedModel, task: str | None) -> None:
    model.config.architectures = [type(model).__name__]  # a model that was never saved lacks it
    if task in PROBLEM_TYPES:
        model.config.update({"problem_type": task})  # what the caller said is not to be guessed again


def _complete(job: Job, processing_class: Any) -> None:
    if not (job.folder / "config.json").exists():  # a library that saves whole models writes its own
        job.model.config.save_pretrained(job.folder)
    if job.model.can_generate() and job.model.generation_config is not None:
        job.model.generation_config.save_pretrained(job.folder)
    if processing_class is not None:
        processing_class.save_pretrained(job.folder)


def _record(attempt: Attempt, source: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    job, made, method = attempt.job, attempt.made, attempt.method.name
    versions = asdict(find_environment())
    return {
        "method": method,
        "source": source,
        "task": job.task,
        "ignore": list(job.ignore),
        **made.record,
        **({"calibration": dict(attempt.calibration)} if attempt.calibration else {}),
        **facts,
        "recipe": recipe_hash(job, method, made.record),
        "proof": prove(job, made, method),
        "versions": {library: versions[library] for library in LIBRARIES},
    }


@contextlib.contextmanager
def _stages(method: Method) -> Iterator[Callable[[str], None]]:
    total = method.facts.get("stages", 0) + 1  # the proof
    with tqdm(total=total, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}]") as bar:

        def step(name: str) -> None:
            bar.update(1 if bar.desc else 0)  # the one before is done
            bar.total = max(bar.total, bar.n + 1)  # a search has more stages than one artifact
            bar.set_description_str(f"{method.name}: {name}")

        yield step
        bar.update(1)
        bar.set_description_str(f"{method.name}: done")
