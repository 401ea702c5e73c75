"""`hf-shrink distill-dataset`: from files to a folder that `load_dataset` reads and `push --dataset` sends up."""

import inspect
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from huggingface_hub import HfApi
from typer.main import get_command

from hf_shrink.cli import distill_dataset_stages
from hf_shrink.cli.distill_dataset_stages import DatasetDistillation, parse_budget
from hf_shrink.cli.main import app
from hf_shrink.dataset_distillation import DUPLICATE_METHODS, SELECTORS, DatasetReport, distill_dataset
from hf_shrink.errors import ShrinkError
from hf_shrink.hub.dataset_folder import push_dataset_folder
from hf_shrink.inputs.packaged import packaged_minilm
from tests.cli.distilling import save_teacher
from tests.cli.test_main import run as run_in_process
from tests.dataset_distillation.encoding import save, tiny_encoder
from tests.hub.cards import front_matter, validate_card
from tests.models import WORDS

NAMES = ["card", "money", "pin"]
PLAIN = ("--method", "stratified", "--duplicates", "none")


def make_rows(count, seed=0):
    """Texts of words, of which each class has some of its own."""
    generator = np.random.default_rng(seed)
    parts = np.array_split(WORDS, len(NAMES))
    labels = generator.permutation(np.arange(count) % len(NAMES))
    texts = [" ".join(generator.choice(parts[label], 6)) for label in labels]
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    return Dataset.from_dict({"text": texts, "label": labels.tolist()}, features=features)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder with a train and a test split; one training row stands in the test split too."""
    folder = tmp_path_factory.mktemp("data") / "questions"
    folder.mkdir()
    train = make_rows(120)
    train.to_parquet(folder / "train.parquet")
    Dataset.from_list([train[7], *make_rows(5, seed=1)], features=train.features).to_parquet(folder / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny encoder on disk."""
    return save(tiny_encoder(), tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture
def distilled(run, rows, tmp_path, monkeypatch):
    """Run the command; what it printed, in one line."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*more):
        done = run("distill-dataset", "--dataset", rows, "--output-dir", tmp_path / "out", *more)
        return " ".join(done.stdout.split())

    return call


def report(folder):
    return DatasetReport.from_dict(json.loads((folder / "dataset_report.json").read_text()))


# ---------------------------------------------------------------------- done
def test_rows_report_pictures_and_card_lie_in_a_folder_that_loads(distilled, tmp_path, rows, encoder):
    said = distilled("--budget", 0.1, "--encoder", encoder, "--license", "cc-by-4.0")
    out = tmp_path / "out"
    assert {"README.md", "train.parquet", "dataset_report.json", "curve.png", "map.png"} <= {
        path.name for path in out.iterdir()
    }
    small = load_dataset(str(out), split="train")
    assert len(small) == 12
    assert small.features["label"].names == NAMES
    source = load_dataset(str(rows), split="train")
    assert source.select(small["source_index"])["text"] == small["text"][:]
    assert DatasetReport.of(small) == report(out)
    for shown in (
        "12 of 120 rows of questions",
        report(out).verdict,
        "Gain over a stratified sample",
        "Rows kept"[:4],
    ):
        assert shown in said


def test_the_card_is_one_of_the_hubs_and_names_the_file(distilled, tmp_path):
    distilled("--budget", 12, *PLAIN, "--license", "mit", "--license", "cc-by-nc-4.0", "--source", "PolyAI/banking77")
    card = (tmp_path / "out" / "README.md").read_text()
    assert validate_card(card, "dataset") == ([], [])
    data = front_matter(card)[0]
    assert data["license"] == "cc-by-nc-4.0"
    assert data["source_datasets"] == ["PolyAI/banking77"]
    assert data["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}]
    assert data["dataset_info"]["splits"][0]["num_examples"] == 12
    assert data["dataset_info"]["download_size"] == (tmp_path / "out" / "train.parquet").stat().st_size
    assert "# out\n" in card
    assert "12 of 120 rows of questions" in card


def test_a_folder_of_this_machine_is_no_source_of_the_hub(distilled, tmp_path):
    distilled("--budget", 12, *PLAIN)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "source_datasets" not in front_matter(card)[0]
    assert str(tmp_path) not in card


@pytest.mark.parametrize(("budget", "counts"), [("0.1", [4, 4, 4]), ("7", [3, 2, 2]), ("per_class=3", [3, 3, 3])])
def test_every_form_of_a_budget_is_exact(distilled, tmp_path, budget, counts):
    distilled("--budget", budget, *PLAIN)
    small = load_dataset(str(tmp_path / "out"), split="train")
    assert sorted(np.bincount(small["label"]).tolist(), reverse=True) == counts


def test_tokens_are_counted_by_the_tokenizer_that_is_named(distilled, tmp_path, encoder):
    distilled("--budget", "tokens=100", "--tokenizer", encoder, *PLAIN)
    found = report(tmp_path / "out")
    small = load_dataset(str(tmp_path / "out"), split="train")
    assert found.tokens == sum(len(text.split()) + 2 for text in small["text"]) <= 100


def test_test_rows_are_left_out(distilled, tmp_path, rows):
    distilled("--budget", 119, *PLAIN, "--exclude", rows)
    small = load_dataset(str(tmp_path / "out"), split="train")
    assert 7 not in small["source_index"]
    (step,) = [stage for stage in report(tmp_path / "out").stages if stage.name == "rows of test sets"]
    assert (step.before, step.after) == (120, 119)


def test_rows_near_those_that_matter_are_chosen(distilled, tmp_path, rows, encoder):
    settings = ("--budget", 12, "--method", "rds", "--encoder", encoder, "--no-curve")
    with pytest.raises(ShrinkError, match="`targets` must be given"):
        distilled(*settings)
    assert not (tmp_path / "out").exists()
    distilled(*settings, "--targets", rows, "--targets-split", "test")
    assert report(tmp_path / "out").selector == "rds"
    assert len(load_dataset(str(tmp_path / "out"), split="train")) == 12


def test_every_option_reaches_the_function(distilled, tmp_path, encoder, monkeypatch):
    given = {}

    def keep(rows, budget, **settings):
        given.update(settings, rows=rows, budget=budget)
        return distill_dataset(rows, 12, method="stratified", output_dir=settings["output_dir"])

    monkeypatch.setattr(distill_dataset_stages, "distill_dataset", keep)
    config = {
        "budget": 0.2,
        "split": "train[:60]",
        "method": "kmeans",
        "method_option": {"iterations": 3},
        "text_column": ["text"],
        "label_column": "label",
        "exclude": [str(tmp_path / "data" / "test.parquet")],
        "exclude_split": "test[:2]",
        "duplicates": "none",
        "label_noise": True,
        "encoder": str(encoder),
        "curve": False,
        "batch_size": 8,
        "max_length": 16,
        "soft_labels": True,
        "teacher": "a/teacher",
        "seed": 3,
    }
    (tmp_path / "data").mkdir()
    make_rows(6).to_parquet(tmp_path / "data" / "test.parquet")
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    distilled("--config", tmp_path / "c.yaml", "--seed", 5)
    assert len(given["rows"]) == 60
    assert [len(rows) for rows in given["exclude"]] == [2]
    settings = {
        "method": "kmeans",
        "method_kwargs": {"iterations": 3},
        "text_column": ["text"],
        "label_column": "label",
    }
    settings |= {"duplicates": None, "label_noise": True, "encoder": str(encoder), "curve": False, "batch_size": 8}
    settings |= {"max_length": 16, "soft_labels": True, "teacher": "a/teacher", "seed": 5, "budget": 0.2}
    assert {name: given[name] for name in settings} == settings


def test_every_argument_of_the_function_is_an_option():
    options = {option.name for option in get_command(app).commands["distill-dataset"].params}
    renamed = {"method_kwargs": "method_option", "processing_class": "tokenizer"}
    python_alone = {"embeddings", "stream_rows"}  # an array, and a stream
    arguments = set(inspect.signature(distill_dataset).parameters) - python_alone
    assert {renamed.get(name, name) for name in arguments} <= options


def test_a_teachers_answers_stand_in_the_folder(distilled, tmp_path, teacher, run):
    names = dict(enumerate(NAMES))
    labels = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    save_teacher(tmp_path / "teacher", **labels)
    distilled("--budget", 12, *PLAIN, "--teacher", tmp_path / "teacher")
    small = load_dataset(str(tmp_path / "out"), split="train")
    assert np.shape(small["soft_label"]) == (12, 3)
    assert front_matter((tmp_path / "out" / "README.md").read_text())[0]["annotations_creators"] == [
        "machine-generated"
    ]


def test_a_run_that_was_cut_off_goes_on(distilled, tmp_path, encoder, monkeypatch):
    def cut_off(*_args, **_kwargs):
        raise KeyboardInterrupt

    settings = ("--budget", 12, "--encoder", encoder, "--no-curve", "--method", "kmeans")
    monkeypatch.setattr(distill_dataset_stages, "folder_card", cut_off)
    monkeypatch.setattr("hf_shrink.dataset_distillation.distill.choose", cut_off)
    distilled(*settings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["embeddings"]
    monkeypatch.undo()
    distilled(*settings)
    assert report(tmp_path / "out").encode_seconds is None  # they were there
    assert len(load_dataset(str(tmp_path / "out"), split="train")) == 12


@pytest.mark.slow
def test_the_packaged_encoder_tells_rows_apart(distilled, tmp_path):
    assert packaged_minilm() is not None
    said = distilled("--budget", 0.2)
    assert report(tmp_path / "out").encoder == "all-MiniLM-L6-v2"
    assert "all-MiniLM-L6-v2" in said


# ---------------------------------------------------------------------- to the Hub
def test_the_folder_goes_up_with_its_report_its_source_and_its_licence(distilled, run, tmp_path, hub):
    distilled("--budget", 12, *PLAIN, "--license", "cc-by-4.0", "--source", "PolyAI/banking77")
    out, repo_id = tmp_path / "out", "user/pushed-small-rows"
    said = run("push", "--dataset", out, repo_id, "--private", "--commit-message", "small")
    back, small = load_dataset(repo_id, split="train"), load_dataset(str(out), split="train")
    assert back.features == small.features
    assert back.to_dict() == small.to_dict()
    assert DatasetReport.of(back) == report(out)
    info = HfApi().dataset_info(repo_id)
    assert info.private
    assert info.sha in said.output
    assert info.card_data["license"] == "cc-by-4.0"
    assert info.card_data["source_datasets"] == ["PolyAI/banking77"]
    assert HfApi().list_repo_files(repo_id, repo_type="dataset") == [
        ".gitattributes",
        "README.md",
        "data/train-00000-of-00001.parquet",
    ]


def test_no_pull_request_with_rows_and_no_rows_without_a_folder(run, tmp_path):
    assert run("push", "--dataset", tmp_path, "user/x", "--create-pr").exit_code == 2
    with pytest.raises(ShrinkError, match="`folder` must be a folder with a dataset"):
        push_dataset_folder(tmp_path / "nowhere", "user/x")


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "0"), "`budget` must be a share in .*got '0'.*per_class=50"),
        (("--budget", "1.5"), "`budget` must be a share in"),
        (("--budget", "nan"), "`budget` must be a share in"),
        (("--budget", "a tenth"), "`budget` must be a share in"),
        (("--budget", "rows=5"), "`budget` must be a share in"),
        (("--budget", "per_class=0.5"), "`budget` must be a share in"),
        (("--budget", "9", "--label-noise", "perhaps"), "`label_noise` must be yes, no or auto"),
        (("--budget", "9", "--method-option", "iterations"), "`--method-option` must be NAME=VALUE"),
        (("--budget", "tokens=90"), "`tokenizer` must be given for a budget of tokens"),
        (("--budget", "9", "--tokenizer", "x"), "`tokenizer` must be left out without a budget of tokens"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(distilled, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(distill_dataset_stages, "load_rows", None)
    with pytest.raises(ShrinkError, match=message):
        distilled(*more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "9", "--method", "kmeens"), "Did you mean 'kmeans'"),
        (("--budget", "9", "--duplicates", "exakt"), "Did you mean 'exact'"),
        (
            ("--budget", "9", "--method", "kmeans", "--method-option", "clusters=3"),
            "`method_kwargs` must hold options",
        ),
        (("--budget", "500"), "`budget` must be in"),
        (("--budget", "2"), "`budget` must be in"),
        (("--budget", "9", "--label-column", "intent"), "`label_column`"),
        (("--budget", "9", "--split", "dev"), "`split` must be one of"),
    ],
)
def test_what_does_not_fit_the_rows_writes_nothing(distilled, tmp_path, more, message):
    with pytest.raises(ShrinkError, match=message):
        distilled(*more)
    assert not (tmp_path / "out").exists()


def test_the_exit_code_and_the_line_of_a_refusal(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    needed = ("distill-dataset", "--dataset", "d", "--output-dir", "out")
    done = run_in_process(*needed, "--budget", "0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: `output_dir` must be new or empty")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("more", [(), ("--budget", "0.5", "--bugdet", "1"), ("--budget", "1", "--batch-size", "0")])
def test_wrong_usage_is_exit_code_2(run, more):
    assert run("distill-dataset", "--dataset", "d", *more).exit_code == 2


# ---------------------------------------------------------------------- help
def test_the_help_names_all_there_is_and_the_defaults():
    options = {option.name: option for option in get_command(app).commands["distill-dataset"].params}
    assert all(name in options["method"].help for name in SELECTORS)
    assert all(name in options["duplicates"].help for name in DUPLICATE_METHODS)
    defaults = DatasetDistillation(dataset="d", budget="1", output_dir=options["output_dir"].default)
    for name, option in options.items():
        if option.default not in (None, ...) and not option.required and name != "config":
            assert option.default == getattr(defaults, name), name
    arguments = inspect.signature(distill_dataset).parameters
    for name in ("method", "duplicates", "label_noise", "curve", "batch_size", "seed", "soft_labels", "max_length"):
        assert options[name].default == arguments[name].default, name


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.1", 0.1),
        ("1.0", 1.0),
        ("1", 1),
        ("5_000", 5000),
        ("per-class=50", {"per_class": 50}),
        ("tokens=9", {"tokens": 9}),
    ],
)
def test_a_budget_is_read_as_it_is_written(text, budget):
    found = parse_budget(text)
    assert found == budget
    assert type(found) is type(budget)
