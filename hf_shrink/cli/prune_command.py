"""`hf-shrink prune`: zeros at one stroke or while the model trains, a smaller shape within limits, fewer tokens."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hf_shrink.cli.assignments import Assignments, read_assignments
from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError

SEARCH, VOCABULARY, TRAINING = "A smaller shape, without training", "A smaller vocabulary", "Zeros while it trains"
WAYS = (
    "Zeros at one stroke: --sparsity 0.5. While the model trains: --train --sparsity 0.8. A smaller shape that stock "
    "transformers loads: --constraint macs=0.5. Fewer tokens, alone or before any of these: --vocabulary DATA."
)


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("prune", epilog=WAYS)(prune_model)


def prune_model(
    model: Annotated[str, typer.Option(help="Folder or Hub id of the fine-tuned model.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Folder, file or Hub id of the data to compare on, and to train on or calibrate with."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="New or empty folder for the pruned model, its report and its card.")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Prune while the model trains; without it, at one stroke.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="What a weight is worth: magnitude, random, taylor or fisher; only with --train movement; only "
            "without it wanda or sparsegpt; default: magnitude, with --constraint fisher."
        ),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            help="What goes as a whole: unstructured, N:M such as 2:4, block:32x32, neurons or heads; several with "
            "commas. Neurons and heads are cut out in the end where the model's config can say so. With --constraint "
            "layers, heads and neurons; default: unstructured, with --constraint all that a stock model can lose."
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Share of the weights (of the neurons, of the heads) that is zero in the end, 0 to 1; default: all "
            "that N:M leaves out; for the others 0.8 with --train, and to be given without it."
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="global compares all weights, local prunes each matrix by the same share, rows (only without "
            "--train) each output; default: local for neurons and heads, whose layers have to stay equally wide to be "
            "cut; else global with --train, and the method's own without it."
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="What is pruned: a class, a module, or re: with a pattern; may be repeated; default: Linear."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="What is not, in the same forms; may be repeated; default: re:.*classifier.*."),
    ] = None,
    max_module_sparsity: Annotated[
        float | None,
        typer.Option(help="No target loses more than this share with the global scope, 0 to 1; default: 1.0."),
    ] = None,
    calibration_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training rows that a method reads without --train, where it does; default: 256, with --constraint "
            "2000.",
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="What the model may cost at most, in place of --sparsity and without training: macs, parameters, "
            "size_mb or latency_ms. Of macs and parameters 0.5 is a share of what there is (after --vocabulary) and "
            "1000000 a count; may be repeated.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    uniform: Annotated[
        bool,
        typer.Option(
            "--uniform/--no-uniform",
            help="All layers equally wide, as stock models are, or each as wide as it needs.",
            rich_help_panel=SEARCH,
        ),
    ] = True,
    layout: Annotated[
        str | None,
        typer.Option(
            help="With --no-uniform: native, pad (zeros fill the layers up), remote (exact sizes, loads with "
            "trust_remote_code=True alone) or auto (native where it can be, else pad); default: auto.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct/--no-reconstruct",
            help="What stays makes up for what goes, by least squares, or is left as it is.",
            rich_help_panel=SEARCH,
        ),
    ] = True,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of the row that MACs are counted on; default: the median of the rows read.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            help="Folder, file or Hub id of texts: tokens that do not come up there go, with their embeddings, before "
            "anything else is pruned. It may be all that is asked for.",
            rich_help_panel=VOCABULARY,
        ),
    ] = None,
    vocabulary_split: Annotated[
        str | None,
        typer.Option(help="Split of these texts; default: that of --train-split.", rich_help_panel=VOCABULARY),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(min=1, help="How often a token must come up to stay; default: 1.", rich_help_panel=VOCABULARY),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="A token that stays in any case, as the tokenizer writes it; may be repeated.",
            rich_help_panel=VOCABULARY,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Print in which layouts --model can be saved and what each costs, and stop there."
        ),
    ] = False,
    initial_sparsity: Annotated[
        float | None,
        typer.Option(
            help="With --train: share that is zero at the start, 0 to 1; default: 0.0.", rich_help_panel=TRAINING
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="With --train: how the share rises: constant, cubic, exponential, linear, multi_step or one_shot; "
            "default: cubic.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    start_step: Annotated[
        float | None,
        typer.Option(
            help="With --train: when pruning begins: up to 1.0 a share of the run, above it a step; default: 0.0.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    end_step: Annotated[
        float | None,
        typer.Option(
            help="With --train: when the final sparsity is reached, in the same form; default: 1.0.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    pruning_frequency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --train: steps between two choices of what is pruned; default: 10.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    milestones: Annotated[
        list[float] | None,
        typer.Option(
            help="With --schedule multi_step: share of the way from start to end at which the sparsity rises; may be "
            "repeated; default: [0.25, 0.5, 0.75, 1.0].",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    score_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="With --method movement: learning rate of the scores; default: 0.01.", rich_help_panel=TRAINING
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="With --train: folder or Hub id of a teacher to learn from beside the labels.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"With --teacher: training arguments measured together: {', '.join(PRESETS)}, or none; default: "
            "classification for single-label classifiers that are encoders, else none.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to train on, or to calibrate with.")] = "train",
    eval_split: Annotated[str, typer.Option(help="Split to compare the original and the pruned model on.")] = "test",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_length: MaxLength = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric of the report; default: accuracy, mse for regression, perplexity for language models."
        ),
    ] = None,
    num_train_epochs: Annotated[
        float | None,
        typer.Option(help="With --train: passes over the training rows; default: 3.0.", rich_help_panel=TRAINING),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="With --train: peak learning rate of AdamW; default: 5e-05.", rich_help_panel=TRAINING),
    ] = None,
    per_device_train_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="With --train: rows a batch and device; default: 32.", rich_help_panel=TRAINING),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 42,
    bf16: Annotated[
        bool, typer.Option(help="With --train: train with bf16 autocast.", rich_help_panel=TRAINING)
    ] = False,
    set_: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Prune a model, compare it with the original, and leave model, report and card in a folder."""
    from hf_shrink.cli.prune_settings import Pruning
    from hf_shrink.cli.prune_stages import print_layouts, run_pruning

    if explain:
        print_layouts(model)
        return
    if dataset is None or output_dir is None:
        missing = "--dataset" if dataset is None else "--output-dir"
        raise typer.BadParameter("must be given; only --explain does without.", param_hint=missing)
    search = {
        "uniform": None if uniform else False,
        "reconstruct": None if reconstruct else False,
        "sequence_length": sequence_length,
    }
    words = {"vocabulary_split": vocabulary_split, "min_count": min_count, "keep": keep or None}
    schedules = {
        "initial_sparsity": initial_sparsity,
        "schedule": schedule,
        "start_step": start_step,
        "end_step": end_step,
        "pruning_frequency": pruning_frequency,
        "milestones": milestones or None,
        "score_learning_rate": score_learning_rate,
    }
    training = {
        "num_train_epochs": num_train_epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": per_device_train_batch_size,
        "bf16": bf16 or None,
    }
    run_pruning(
        Pruning(
            model=model,
            dataset=dataset,
            output_dir=output_dir,
            train=train,
            method=method,
            structure=structure,
            sparsity=sparsity,
            constraints=read_assignments(constraint, "--constraint", "macs=0.5") if constraint else None,
            search=_given(search),
            layout=layout,
            words=_words(vocabulary, train_split, _given(words)),
            scope=scope,
            max_module_sparsity=max_module_sparsity,
            patterns=_given({"targets": targets or None, "ignore": ignore or None}),
            schedule=_given(schedules),
            calibration_size=calibration_size,
            teacher=teacher,
            preset=preset,
            training={**_given(training), **read_assignments(set_)},
            train_split=train_split,
            eval_split=eval_split,
            text_column=text_column,
            label_column=label_column,
            max_length=max_length,
            metric=metric,
            seed=seed,
        )
    )


def _words(corpus: str | None, train_split: str, given: dict[str, Any]) -> Any:
    from hf_shrink.cli.prune_settings import Words

    if corpus is None and given:
        raise ShrinkError(
            f"`{next(iter(given))}` must be left out without --vocabulary, which says what tokens are counted in."
        )
    if corpus is None:
        return None
    split = None if Path(corpus).is_file() else train_split
    return Words(corpus, **{"split": given.pop("vocabulary_split", split), **given})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
