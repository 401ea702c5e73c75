"""`hf-shrink prune`: set weights of a model to zero, at one stroke or while it trains."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hf_shrink.cli.assignments import Assignments, read_assignments
from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn
from hf_shrink.distillation.presets import PRESETS


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("prune")(prune_model)


def prune_model(
    model: Annotated[str, typer.Option(help="Folder or Hub id of the fine-tuned model.")],
    dataset: Annotated[
        str,
        typer.Option(help="Folder, file or Hub id of the data to compare on, and to train on or calibrate with."),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="New or empty folder for the pruned model, its report and its card.")
    ],
    train: Annotated[
        bool, typer.Option("--train", help="Prune while the model trains; without it, at one stroke.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="What a weight is worth: magnitude, random, taylor or fisher; only with --train movement; only "
            "without it wanda or sparsegpt."
        ),
    ] = "magnitude",
    structure: Annotated[
        str,
        typer.Option(
            help="What goes as a whole: unstructured, N:M such as 2:4, block:32x32, neurons or heads; several with "
            "commas. Neurons and heads are cut out in the end where the model's config can say so."
        ),
    ] = "unstructured",
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
        float, typer.Option(help="No target loses more than this share with the global scope, 0 to 1.")
    ] = 1.0,
    calibration_size: Annotated[
        int | None,
        typer.Option(min=1, help="Training rows that a method reads without --train, where it does; default: 256."),
    ] = None,
    initial_sparsity: Annotated[
        float | None, typer.Option(help="With --train: share that is zero at the start, 0 to 1; default: 0.0.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="With --train: how the share rises: constant, cubic, exponential, linear, multi_step or one_shot; "
            "default: cubic."
        ),
    ] = None,
    start_step: Annotated[
        float | None,
        typer.Option(
            help="With --train: when pruning begins: up to 1.0 a share of the run, above it a step; default: 0.0."
        ),
    ] = None,
    end_step: Annotated[
        float | None,
        typer.Option(help="With --train: when the final sparsity is reached, in the same form; default: 1.0."),
    ] = None,
    pruning_frequency: Annotated[
        int | None,
        typer.Option(min=1, help="With --train: steps between two choices of what is pruned; default: 10."),
    ] = None,
    milestones: Annotated[
        list[float] | None,
        typer.Option(
            help="With --schedule multi_step: share of the way from start to end at which the sparsity rises; may be "
            "repeated; default: [0.25, 0.5, 0.75, 1.0]."
        ),
    ] = None,
    score_learning_rate: Annotated[
        float | None, typer.Option(help="With --method movement: learning rate of the scores; default: 0.01.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="With --train: folder or Hub id of a teacher to learn from beside the labels."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"With --teacher: training arguments measured together: {', '.join(PRESETS)}, or none; default: "
            "classification for single-label classifiers that are encoders, else none."
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
        float | None, typer.Option(help="With --train: passes over the training rows; default: 3.0.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="With --train: peak learning rate of AdamW; default: 5e-05.")
    ] = None,
    per_device_train_batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --train: rows a batch and device; default: 32.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 42,
    bf16: Annotated[bool, typer.Option(help="With --train: train with bf16 autocast.")] = False,
    set_: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Prune a model, compare it with the original, and leave model, report and card in a folder."""
    from hf_shrink.cli.prune_settings import Pruning
    from hf_shrink.cli.prune_stages import run_pruning

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


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
