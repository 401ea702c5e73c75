"""`distill_dataset`: a small real subset that trains nearly as well."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from transformers.utils import logging

from hf_shrink.dataset_distillation.budget import Budget, read_budget
from hf_shrink.dataset_distillation.choice import AUTO, Asked, Choice, choose
from hf_shrink.dataset_distillation.dealt_batches import processes
from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.embeddings import check_embeddings
from hf_shrink.dataset_distillation.pictures import plot_map
from hf_shrink.dataset_distillation.pool import Pool, reads_of
from hf_shrink.dataset_distillation.preparation import Encoding, prepare
from hf_shrink.dataset_distillation.report import DatasetReport
from hf_shrink.dataset_distillation.reporting import report_choice
from hf_shrink.dataset_distillation.result import check_own_columns, write_result
from hf_shrink.dataset_distillation.scores import COLUMN, SCORES
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.dataset_distillation.soft_labels import add_soft_labels, attach_soft_labels, out_of_fold_soft_labels
from hf_shrink.dataset_distillation.strata import Strata, find_strata
from hf_shrink.dataset_distillation.stream import sample_stream
from hf_shrink.dataset_distillation.tokens import count_tokens
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import TOKENIZED, Columns, find_columns
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import FORMATS, dataset_name, load_rows
from hf_shrink.inputs.models import load_model
from hf_shrink.inputs.remote import looks_like_path

logger = logging.get_logger(__name__)


def distill_dataset(
    dataset: Any,
    budget: float | int | Mapping[str, int],
    *,
    method: str | Callable[..., Any] = AUTO,
    label_column: str | None = None,
    text_column: str | Sequence[str] | None = None,
    encoder: Any = None,
    embeddings: Any = None,
    teacher: Any = None,
    soft_labels: bool = False,
    exclude: Any = None,
    duplicates: str | None = "exact",
    label_noise: bool | str = AUTO,
    targets: Any = None,
    method_kwargs: Mapping[str, Any] | None = None,
    processing_class: Any = None,
    curve: bool = True,
    split: str | None = None,
    stream_rows: int = 50_000,
    batch_size: int = 64,
    max_length: int | None = None,
    output_dir: str | Path | None = None,
    seed: int = 0,
) -> Dataset:
    """Choose the rows of a dataset on which a model trains nearly as well as on all of them.

    Rows of test sets and duplicates go first. Then rows are chosen among the rest, in each class under its share of
    the budget, none without a row. With `method="auto"` several selectors are tried against a stratified sample: a
    linear head learns what each chose and is asked about held-out rows. The best is used where it beats the sample,
    else the sample is. The same rows are chosen whatever the number of processes and threads.

    Args:
        dataset: A `Dataset`, a path or a Hub id; or an `IterableDataset`, which is read once and sampled.
        budget: What to keep: a share of the rows given (0.1), a number of rows (5000), of each class
            (`{"per_class": 50}`), or of tokens (`{"tokens": 2_000_000}`, never exceeded).
        method: Name in `SELECTORS`, "auto", or a callable that works as they do.
        label_column: The label's column; found where it is None. Classes, numbers (in ten bins), or lists of labels.
        text_column: The column of texts, words or images, or two for pairs; found where it is None.
        encoder: What makes embeddings, as in `encode`.
        embeddings: Shape (N, D), in place of an encoder.
        teacher: A model for the same classes, or a folder or Hub id: its answers become the column `soft_label`.
        soft_labels: Without a teacher, answers of a linear head on the embeddings, out of fold, become `soft_label`.
        exclude: Test sets, as a `Dataset`, a list or a dictionary of them: rows that stand in one are left out.
        duplicates: "exact", "minhash", "semantic", as in `deduplicate`, or None to keep them.
        label_noise: Whether rows whose label is likely wrong are left out; "auto" tries both with `method="auto"`,
            and leaves them in with any other.
        targets: Rows that matter, for `method="rds"`: a `Dataset` to encode, or embeddings of shape (M, D).
        method_kwargs: Options of the selector.
        processing_class: Counts tokens, and prepares rows for encoder and teacher where they are instances; those that
            are named bring their own.
        curve: Measure the score by rows kept, and a method that is named against a stratified sample.
        split: Where the dataset has several.
        stream_rows: Rows of a stream that are sampled.
        batch_size: Rows that encoder and teacher read at once.
        max_length: Tokens that they cut a text to.
        output_dir: Folder for the embeddings (a run that was cut off goes on), the rows (`train.parquet`), the report
            and its pictures.
        seed: Of everything random.

    Returns:
        The rows, in an order by lot, with their columns and `source_index` (position among the rows given), `rank` (0
        is the most valuable), `weight` (how many rows each stands for, against the mean), and where they apply
        `cluster`, `score_*`, `soft_label`. `DatasetReport.of` reads from their description how they were made.
    """
    start = time.perf_counter()
    _check_there(encoder=encoder, teacher=teacher)
    wanted = _checked(budget, method, duplicates, label_noise, stream_rows, method_kwargs)
    rows, positions, given = _rows(dataset, split, stream_rows, seed)
    rows = check_own_columns(rows)
    columns = _columns(rows, text_column, label_column)
    strata = find_strata(rows, columns.label)
    if wanted.tokens is None:
        wanted.total(len(rows), strata)  # before anything runs
    lengths = None if wanted.tokens is None else count_tokens(rows, columns.text, processing_class)
    known = _score_columns(rows)
    head_labels = soft_labels and teacher is None
    _check_fit(strata, method, known, targets, label_noise=label_noise, head_labels=head_labels)
    answering = (
        load_model(teacher) if isinstance(teacher, str | Path) else teacher
    )  # what fails, fails before the work
    by_vectors = duplicates is not None and DUPLICATE_METHODS[duplicates].facts["reads"] == "embeddings"
    reads = _reads(method, encoder, embeddings) or head_labels or targets is not None or by_vectors
    encoding = Encoding(
        encoder,
        embeddings,
        _of_instance(encoder, processing_class),
        batch_size,
        max_length,
        None if output_dir is None else Path(output_dir).expanduser(),
        wanted=reads or label_noise is True,
    )
    prepared = prepare(rows, columns, encoding, exclude=exclude, duplicates=duplicates)
    with threadpool_limits(1):  # sums in another order would move a close decision
        pool = Pool(
            strata.only(prepared.alive),
            prepared.embeddings,
            None if targets is None else _targets(targets, columns, encoding),
            {name: values[prepared.alive] for name, values in known.items()},
            seed,
        )
        own_lengths = None if lengths is None else lengths[prepared.alive]
        asked = Asked(wanted, given, method, dict(method_kwargs or {}), label_noise, curve, own_lengths)
        before = time.perf_counter()
        choice = choose(pool, asked)
        seconds = time.perf_counter() - before
    report = report_choice(_name(dataset), given, rows, pool, prepared, asked, choice, encoding, seconds)
    picked = prepared.alive[choice.selection.rows]
    small = write_result(rows, picked, _told(pool, choice), indices=positions[picked], report=report)
    if teacher is not None:
        small = attach_soft_labels(
            small,
            answering,
            text_column=columns.text or None,
            label_column=columns.label,
            processing_class=_of_instance(teacher, processing_class),
            batch_size=batch_size,
            max_length=max_length,
        )
    elif head_labels:
        small = _with_head_labels(small, rows, prepared.alive, pool, choice, columns.label)
    state = processes()
    if output_dir is not None and state.is_main_process:  # every process has chosen the same rows
        _write(small, report, pool, choice, Path(output_dir).expanduser())
    state.wait_for_everyone()
    logger.info(f"{len(small):,} of {given:,} rows in {time.perf_counter() - start:.0f} s. {report.verdict}")
    return small


def _checked(
    budget: Any, method: Any, duplicates: Any, label_noise: Any, stream_rows: int, options: Mapping[str, Any] | None
) -> Budget:
    """Refuse what needs no rows to be wrong."""
    check_counts(stream_rows=stream_rows)
    if method != AUTO:
        SELECTORS.resolve(method)  # an error says which name is near
    if options and method == AUTO:
        raise ShrinkError(
            f"`method_kwargs` must be left out with method='auto', which tries several, got {dict(options)}. Name one."
        )
    if options and not callable(method) and (unknown := sorted(set(options) - set(SELECTORS[method].options))):
        raise ShrinkError(
            f"`method_kwargs` must hold options of {method} ({sorted(SELECTORS[method].options)}), got {unknown[0]!r}."
        )
    if duplicates is not None:
        DUPLICATE_METHODS.resolve(duplicates)
    if label_noise not in (True, False, AUTO):
        raise ShrinkError(f"`label_noise` must be True, False or 'auto', got {label_noise!r}. Choose one of these.")
    return read_budget(budget)


def _check_there(**models: Any) -> None:
    """Refuse folders that are none, by the name that the user gave them."""
    for argument, model in models.items():
        if isinstance(model, str | Path) and looks_like_path(model) and not Path(model).expanduser().is_dir():
            raise ShrinkError(
                f"`{argument}` must be a model, a folder or a Hub id, but there is no folder {model}. Check the path."
            )


def _rows(dataset: Any, split: str | None, stream_rows: int, seed: int) -> tuple[Dataset, NDArray[np.int64], int]:
    """Rows to choose from, where each stood in what was given, and how many were."""
    if isinstance(dataset, IterableDataset):
        sample = sample_stream(dataset, stream_rows, seed)
        return sample.rows, sample.positions, sample.seen
    rows = load_rows(dataset, split)
    if not len(rows):
        raise ShrinkError("`dataset` must hold rows, got none. Check the split and its filters.")
    return rows, np.arange(len(rows)), len(rows)


def _columns(rows: Dataset, text_column: str | Sequence[str] | None, label_column: str | None) -> Columns:
    found = find_columns(rows, text_column=text_column, label_column=label_column)
    if found.label is None and not set(TOKENIZED) & set(rows.column_names):
        logger.info(f"No column of {rows.column_names} holds a label: rows are chosen without classes.")
    return found


def _check_fit(
    strata: Strata,
    method: Any,
    known: Mapping[str, Any],
    targets: Any,
    *,
    label_noise: bool | str,
    head_labels: bool,
) -> None:
    """Refuse what the rows cannot give."""
    if strata.kind != "classes" and (label_noise is True or head_labels):
        argument, instead = (
            ("label_noise", "") if label_noise is True else ("soft_labels", " Give a `teacher` instead.")
        )
        raise ShrinkError(
            f"`{argument}` must be False for rows whose labels are not one class each, got True.{instead}"
            " Name the column with `label_column` where there is one."
        )
    if method == AUTO or callable(method):
        return
    facts = SELECTORS[method].facts
    if "targets" in facts["reads"] and targets is None:
        raise ShrinkError(f"`targets` must be given for method={method!r}, got None. Give the rows that matter.")
    if "difficulty" in facts["reads"] and strata.kind != "classes" and facts["score"] not in known:
        raise ShrinkError(
            f"`method` must be one that needs no scores for rows without classes, got {method!r}. Add the column "
            f"{COLUMN}{facts['score']} with score_dataset() first, or take 'kmeans'."
        )


def _reads(method: Any, encoder: Any, embeddings: Any) -> bool:
    """Whether the choice reads embeddings; a plain sample is not measured by an encoder that nobody named."""
    named = encoder is not None or embeddings is not None
    return named or method == AUTO or bool({"embeddings", "difficulty"} & set(reads_of(method)))


def _of_instance(model: Any, processing_class: Any) -> Any:
    """What prepares rows for a model, unless it is named and brings its own: another would give it wrong ids."""
    return None if model is None or isinstance(model, str | Path) else processing_class


def _name(dataset: Any) -> str:
    """What the report calls the source; the name of a file format is none."""
    name = dataset_name(dataset)
    return "the dataset given" if name in {*FORMATS.values(), Dataset.__name__, IterableDataset.__name__} else name


def _targets(targets: Any, columns: Columns, encoding: Encoding) -> NDArray[np.float32]:
    if not isinstance(targets, Dataset):
        return check_embeddings(targets, len(targets))
    if encoding.embeddings is not None:
        raise ShrinkError("`targets` must be embeddings where `embeddings` are given, got a Dataset. Encode it alike.")
    return encoding.run(targets, columns.text, "targets")


def _score_columns(rows: Dataset) -> dict[str, NDArray[np.float32]]:
    """The dataset's own scores."""
    found = {}
    for name in [c.removeprefix(COLUMN) for c in rows.column_names if c.startswith(COLUMN)]:
        if name not in SCORES:
            continue
        found[name] = np.asarray(rows.with_format(None)[f"{COLUMN}{name}"][:], dtype=np.float32)
        if not (finite := np.isfinite(found[name])).all():
            row = int(np.argmin(finite))
            raise ShrinkError(
                f"`dataset` must have a finite {COLUMN}{name} in every row, got {found[name][row]} in row {row}. "
                "Score all rows with score_dataset()."
            )
    return found


def _told(pool: Pool, choice: Choice) -> dict[str, NDArray[Any]]:
    """Columns beside the rank."""
    picks = choice.selection
    told: dict[str, NDArray[Any]] = {"weight": picks.weights}
    if picks.clusters is not None:
        told["cluster"] = picks.clusters
    if isinstance(choice.arm.method, str) and "difficulty" in reads_of(choice.arm.method):
        name = SELECTORS[choice.arm.method].facts["score"]
        told[f"{COLUMN}{name}"] = pool.score(name)[picks.rows]
    return told


def _with_head_labels(
    small: Dataset, rows: Dataset, alive: NDArray[np.int64], pool: Pool, choice: Choice, label: str | None
) -> Dataset:
    """Soft labels without a teacher: what a head says of the picks that was fitted to other rows, of all that are."""
    assert label is not None  # noqa: S101 - the strata are classes
    feature = small.features[label]
    known = isinstance(feature, ClassLabel)
    labels = np.asarray(rows[label])[alive] if known else pool.strata.ids
    answers = out_of_fold_soft_labels(pool.embeddings, labels, classes=feature.num_classes if known else None)
    return add_soft_labels(small, answers[choice.selection.rows[np.asarray(small["rank"])]])


def _write(small: Dataset, report: DatasetReport, pool: Pool, choice: Choice, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    small.to_parquet(folder / "train.parquet")
    report.to_json(folder / "dataset_report.json")
    if report.curve:
        report.plot(folder / "curve.png")
    if pool.embeddings is not None:
        plot_map(pool.embeddings, choice.selection.rows, pool.strata.ids, folder / "map.png", seed=pool.seed)
