"""`hf-shrink distill`: train a student on a dataset and a teacher."""

from pathlib import Path
from typing import Annotated

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
    app.command("distill")(distill)


def distill(
    teacher: Annotated[str, typer.Option(help="Folder or Hub id of the fine-tuned teacher.")],
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the data.")],
    output_dir: Annotated[Path, typer.Option(help="New or empty folder for the student, its report and its card.")],
    student: Annotated[
        str | None, typer.Option(help="Folder or Hub id of a smaller model; default: cut from the teacher.")
    ] = None,
    num_hidden_layers: Annotated[
        int | None, typer.Option(min=1, help="Layers that the student keeps of the teacher; default: half of them.")
    ] = None,
    teacher_cache: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of what cache-teacher made of this teacher and these rows; replaces it in training."
        ),
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    eval_split: Annotated[str, typer.Option(help="Split to compare teacher and student on.")] = "test",
    transfer_dataset: Annotated[
        str | None,
        typer.Option(
            help="Folder, file or Hub id of rows to train on too, without labels: there the teacher alone is heard."
        ),
    ] = None,
    transfer_split: Annotated[
        str | None, typer.Option(help="Split of the transfer dataset, where it has several.")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_length: MaxLength = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric of the report; default: accuracy, mse for regression, perplexity for language models."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Training arguments measured together, which other options override: {', '.join(PRESETS)}, or none; "
            "default: classification for single-label classifiers that are encoders, else none."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the logits in the teacher term; above 0; default: the preset's, or 2.0."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of the teacher term, 0 to 1; default: the preset's, or 0.5.")
    ] = None,
    logit_loss: Annotated[
        str | None, typer.Option(help="Teacher loss on the logits; default: the preset's, or forward_kl.")
    ] = None,
    num_train_epochs: Annotated[
        float | None, typer.Option(help="Passes over the training rows; default: the preset's, or 3.0.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of AdamW; default: the preset's, or 5e-05.")
    ] = None,
    per_device_train_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows a batch and device; default: the preset's, or 32.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 42,
    bf16: Annotated[bool, typer.Option(help="Train with bf16 autocast.")] = False,
    set_: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Distil a teacher into a smaller student, compare the two, and leave model, report and card in a folder."""
    from hf_shrink.cli.distill_stages import Distillation, run_distillation

    options = {
        "preset": preset,
        "temperature": temperature,
        "alpha": alpha,
        "logit_loss": logit_loss,
        "num_train_epochs": num_train_epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": per_device_train_batch_size,
        "seed": seed,
        "bf16": bf16 or None,
    }
    training = {name: value for name, value in options.items() if value is not None} | read_assignments(set_)
    preset = training.pop("preset", None)
    run_distillation(
        Distillation(
            teacher=teacher,
            dataset=dataset,
            output_dir=output_dir,
            student=student,
            num_hidden_layers=num_hidden_layers,
            teacher_cache=teacher_cache,
            train_split=train_split,
            eval_split=eval_split,
            transfer_dataset=transfer_dataset,
            transfer_split=transfer_split,
            text_column=text_column,
            label_column=label_column,
            max_length=max_length,
            metric=metric,
            preset=preset,
            training=training,
        )
    )
