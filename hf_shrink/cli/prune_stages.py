"""What `hf-shrink prune` does: check, prune with or without training, cut out, compare, write."""

from dataclasses import replace
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedModel, Trainer

from hf_shrink.architectures import architecture_of
from hf_shrink.cli.distill_settings import choose_preset, choose_task_metric, method_use
from hf_shrink.cli.prune_methods import pruning_use, search_use, vocabulary_use
from hf_shrink.cli.prune_outcome import Outcome, save_masked, save_plain, save_searched
from hf_shrink.cli.prune_settings import Pruning, Words, check_options, make_arguments, pruning_configs
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
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning import PruningCallback, explain_export, prune, prune_vocabulary, vocabulary_report
from hf_shrink.pruning.search import NAMES, SEARCHED
from hf_shrink.pruning.structures import make_structure


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
    own = tokenizer  # what the pruned model reads with
    uses: tuple[MethodUse, ...] = ()
    notes: tuple[str, ...] = ()
    if options.words is not None:
        _check_texts(test, train)
        model, own, uses, notes = _prune_words(model, tokenizer, test, options.words, options)
    outcome, more = _prune_weights(model, own, train, task, options)
    uses, notes = (*uses, *more), (*notes, *outcome.notes)
    report = compare(
        options.model,
        outcome.saved,
        test,
        metric=metric,
        processing_class=[tokenizer, own],
        provenance=_provenance(options, task, uses, notes),
        **options.columns,
    )
    return _write(replace(report, dataset=dataset_name(options.dataset), split=options.eval_split), options)


def print_layouts(model: str) -> None:
    """Print how a model can be saved.

    Args:
        model: Folder or Hub id.
    """
    Console().print(str(explain_export(load_model(model))), soft_wrap=True, markup=False, highlight=False)


def _check_model(model: Any, options: Pruning) -> tuple[str, str]:
    """Refuse, before rows are read, what cannot be pruned or compared; its task and metric."""
    task = find_task(model)
    if task not in DECODERS:
        raise ShrinkError(
            f"`model` must be for a task that can be compared in the end ({', '.join(sorted(DECODERS))}), got one for "
            f"{task}. Prune it in Python, with prune() or PruningCallback."
        )
    metric = choose_task_metric(options.metric, task, model.config.num_labels)
    if options.constraints is not None:
        architecture_of(inner_model(model))
    for config in pruning_configs(options):
        make_structure(model, config.structure, config.targets, config.ignore)
    return task, metric


# ---------------------------------------------------------------------- vocabulary
def _check_texts(*datasets: Dataset | None) -> None:
    for rows in datasets:
        if rows is not None and set(TOKENIZED) & set(rows.column_names):
            raise ShrinkError(
                "`dataset` must hold texts with --vocabulary, after which tokens have other numbers, got rows that "
                f"are tokenised already: {rows.column_names}. Give the rows as they were before."
            )


def _prune_words(
    model: PreTrainedModel, tokenizer: Any, test: Dataset, words: Words, options: Pruning
) -> tuple[PreTrainedModel, Any, tuple[MethodUse, ...], tuple[str, ...]]:
    """A smaller model with its tokenizer, and what is said of them."""
    # The corpus's own columns, which may bear other names than those of the rows.
    column = options.text_column if words.corpus == options.dataset else None
    smaller, own = prune_vocabulary(
        model, tokenizer, words.corpus, words.min_count, words.keep, split=words.split, text_column=column
    )
    found = vocabulary_report(tokenizer, own, test, text_column=options.text_column)
    note = f"Vocabulary, on the rows that it was compared on: {found}."
    return smaller, own, (vocabulary_use(words, found),), (note,)


# ---------------------------------------------------------------------- weights
def _prune_weights(
    model: PreTrainedModel, tokenizer: Any, train: Dataset | None, task: str, options: Pruning
) -> tuple[Outcome, tuple[MethodUse, ...]]:
    """Prune and save, and say how it was done."""
    if not options.weights_go:
        return save_plain(model, tokenizer, options), ()
    if options.constraints is not None:
        smaller = _search(model, tokenizer, train, options)
        outcome = save_searched(model, smaller, tokenizer, options)
        rows = min(options.rows_read, len(train or ()))
        return outcome, (search_use(options, _may_go(model, options), outcome.layout, rows),)
    if options.train:
        uses = _train(model, tokenizer, train, task, options)
        return save_masked(model, tokenizer, options), uses
    pruned = _prune(model, tokenizer, train, options)
    return save_masked(pruned, tokenizer, options), (pruning_use(options, None),)


def _search(model: PreTrainedModel, tokenizer: Any, rows: Dataset | None, options: Pruning) -> Any:
    return prune(
        model,
        method=options.criterion,
        structure=options.structures,
        constraints=options.constraints,
        calibration_dataset=rows,
        calibration_size=options.rows_read,
        processing_class=tokenizer,
        seed=options.seed,
        **options.search,
        **options.columns,
    )


def _may_go(model: PreTrainedModel, options: Pruning) -> list[str]:
    """What could go, of layers, heads and neurons."""
    native = {NAMES[cut] for cut in architecture_of(inner_model(model)).cuts if cut in NAMES}
    asked = options.structures or SEARCHED
    return [name for name in asked if name in native or not options.uniform]


# ---------------------------------------------------------------------- without training
def _prune(model: PreTrainedModel, tokenizer: Any, rows: Dataset | None, options: Pruning) -> Any:
    given = {} if options.max_module_sparsity is None else {"max_module_sparsity": options.max_module_sparsity}
    return prune(
        model,
        method=options.criterion,
        structure=options.structures,
        sparsity=options.sparsity,
        scope=options.compared,
        calibration_dataset=rows,
        calibration_size=options.rows_read,
        processing_class=tokenizer,
        seed=options.seed,
        **given,
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
