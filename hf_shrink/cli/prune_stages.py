"""What `hf-shrink prune` does: check, prune with or without training, cut out, compare, write."""

from dataclasses import replace
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedModel, Trainer

from hf_shrink.cli.distill_settings import choose_preset, choose_task_metric, method_use
from hf_shrink.cli.prune_settings import CUT, Pruning, check_options, make_arguments, pruning_configs, pruning_use
from hf_shrink.cli.report_table import print_report
from hf_shrink.cli.training_rows import number_labels
from hf_shrink.distillation import DistillationTrainer
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse, Provenance, ShrinkReport, compare
from hf_shrink.evaluation.decoding import DECODERS
from hf_shrink.hub import model_card
from hf_shrink.inputs import (
    TASKS,
    dataset_name,
    default_collator,
    find_task,
    load_model,
    load_processing_class,
    load_rows,
    model_name,
    tokenize_rows,
)
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.pruning import PruningCallback, compact, prune, sparsity_report
from hf_shrink.pruning.sparsity import PLAIN_FILES, SparsityReport
from hf_shrink.pruning.structures import make_structure

NOT_CUT = (
    "Nothing was cut out of the matrices: in a stock model all layers are equally wide, and the one that keeps most "
    "says how wide. --scope local prunes all alike."
)
CALIBRATION_SIZE = 256


def run_pruning(options: Pruning) -> ShrinkReport:
    """Prune, cut out what can be, compare on the evaluation split, and write model, report and card.

    Args:
        options: What to run.

    Returns:
        The report: the original, then the pruned model.
    """
    check_options(options)
    test = load_rows(options.dataset, split=options.eval_split)
    train = load_rows(options.dataset, split=options.train_split) if options.reads_rows else None
    tokenizer, model = load_processing_class(options.model), load_model(options.model)
    task, metric = _check_model(model, options)
    if options.train:
        uses = _train(model, tokenizer, train, task, options)
    else:
        model, uses = _prune(model, tokenizer, train, options), (pruning_use(options, None),)
    notes = _save(model, tokenizer, options)
    report = compare(
        options.model,
        options.output_dir,
        test,
        metric=metric,
        processing_class=tokenizer,
        provenance=_provenance(options, task, uses, notes),
        **options.columns,
    )
    return _write(replace(report, dataset=dataset_name(options.dataset), split=options.eval_split), options)


def _check_model(model: Any, options: Pruning) -> tuple[str, str]:
    """Refuse, before rows are read, what cannot be pruned or compared; its task and metric."""
    task = find_task(model)
    if task not in DECODERS:
        raise ShrinkError(
            f"`model` must be for a task that can be compared in the end ({', '.join(sorted(DECODERS))}), got one for "
            f"{task}. Prune it in Python, with prune() or PruningCallback."
        )
    metric = choose_task_metric(options.metric, task, model.config.num_labels)
    for config in pruning_configs(options):
        make_structure(model, config.structure, config.targets, config.ignore)
    return task, metric


# ---------------------------------------------------------------------- without training
def _prune(model: PreTrainedModel, tokenizer: Any, rows: Dataset | None, options: Pruning) -> Any:
    return prune(
        model,
        method=options.method,
        structure=options.structures,
        sparsity=options.sparsity,
        scope=options.compared,
        max_module_sparsity=options.max_module_sparsity,
        calibration_dataset=rows,
        calibration_size=options.calibration_size or CALIBRATION_SIZE,
        processing_class=tokenizer,
        seed=options.seed,
        **options.patterns,
        **options.columns,
    )


# ---------------------------------------------------------------------- with training
def _train(
    model: PreTrainedModel, tokenizer: Any, train: Dataset, task: str, options: Pruning
) -> tuple[MethodUse, ...]:
    """Train the model in place, and say how."""
    settings = {
        "model": model,
        "train_dataset": _training_rows(train, tokenizer, model, task, options),
        "processing_class": tokenizer,
        "data_collator": default_collator(tokenizer, task),
        "callbacks": [PruningCallback(config) for config in pruning_configs(options)],
    }
    if options.teacher is None:
        args = make_arguments(options)
        Trainer(args=args, **settings).train()
        return (pruning_use(options, args),)
    teacher = load_model(options.teacher)
    preset = choose_preset(options.preset, teacher, task)
    args = make_arguments(options, preset)
    trainer = DistillationTrainer(teacher_model=teacher, args=args, **settings)
    trainer.train()
    use = method_use(args, options.training, preset, trainer.logit_loss)
    use = replace(use, options={"teacher_model": model_name(options.teacher), **use.options})
    return use, pruning_use(options, args)


def _training_rows(train: Dataset, tokenizer: Any, model: Any, task: str, options: Pruning) -> Dataset:
    train, columns = number_labels(train, model, task, options.columns)
    rows = tokenize_rows(train, tokenizer, task=task, **columns)
    if task == "causal_lm" and "labels" not in rows.column_names:
        rows = rows.map(lambda batch: {"labels": batch["input_ids"]}, batched=True, desc="Labelling")
    if options.teacher is None and task != "masked_lm" and "labels" not in rows.column_names:
        raise ShrinkError(
            f"`dataset` must have labels to train on, got {train.column_names}. Name their column with "
            "--label-column, or a teacher with --teacher."
        )
    return rows


# ---------------------------------------------------------------------- what came of it
def _save(model: PreTrainedModel, tokenizer: Any, options: Pruning) -> tuple[str, ...]:
    """Save the pruned model, smaller where it can be cut, and say what its zeros are good for."""
    found = sparsity_report(model.eval(), **options.patterns)
    model.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    share = f"{100 * found.prunable.share:.1f} % of the weights that pruning covers"
    notes = [f"{share} are zero."]
    cuttable = set(CUT) & set(options.structures)
    if cuttable and (cuts := _cuts(found)):
        smaller = compact(model)
        smaller.save_pretrained(options.output_dir)
        found = sparsity_report(smaller, **options.patterns)
        notes = [
            f"{share} were zero before the cut: {' and '.join(cuts)} in every layer. Of what is left, "
            f"{100 * found.prunable.share:.1f} % are zero."
        ]
    elif cuttable:
        notes.append(NOT_CUT)
    if found.prunable.zeros:
        notes.append(PLAIN_FILES)
    return tuple(notes)


def _cuts(found: SparsityReport) -> list[str]:
    return [
        f"`{units.field}` from {units.width} to {units.smallest}"
        for units in found.dead_units or ()
        if units.smallest < units.width
    ]


def _provenance(options: Pruning, task: str, uses: tuple[MethodUse, ...], notes: tuple[str, ...]) -> Provenance:
    trained_on = () if looks_like_path(options.dataset) or not options.train else (options.dataset,)
    return Provenance(
        base_model=None if looks_like_path(options.model) else options.model,
        datasets=trained_on,
        pipeline_tag=TASKS[task].pipeline_tag,
        methods=uses,
        notes=notes,
    )


def _write(report: ShrinkReport, options: Pruning) -> ShrinkReport:
    report.to_json(options.output_dir / "shrink_report.json")
    (options.output_dir / "README.md").write_text(model_card(report, tags=("pruning",)))
    print_report(report)
    for note in report.provenance.notes:
        Console().print(f"• {note}")
    return report
