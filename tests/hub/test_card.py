"""Cards: the Hub takes them, and they claim nothing that the report does not hold."""

import dataclasses
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCardData

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse, Provenance
from hf_shrink.hub import model_card, training_card
from hf_shrink.hub.rendering import REPOSITORY, paper_link, render
from hf_shrink.hub.usage import loading_code
from hf_shrink.inputs import TASKS
from tests.evaluation.example import example_report
from tests.hub.cards import front_matter, validate_card

ROOT = Path(__file__).parents[2]


def metadata(card):
    assert validate_card(card, "model") == ([], [])
    return front_matter(card)[0]


@pytest.mark.parametrize(
    ("size", "words"), [(0.5, "A smaller version of"), (1.0, "A version of"), (None, "A version of")]
)
def test_it_calls_smaller_only_what_is(size, words):
    report = example_report()
    whole = report.original.size_bytes
    entry = replace(report.entries[1], size_bytes=None if size is None else int(size * whole))
    report = replace(report, entries=(report.original, entry))
    assert words in model_card(report)


@pytest.mark.parametrize(
    ("entry", "relation"), [(0, "finetune"), (1, "finetune"), (2, "quantized"), (-1, "quantized")]
)
def test_metadata_of_each_model(entry, relation):
    data = metadata(model_card(example_report(), entry=entry, repo_id="user/small"))
    assert data["library_name"] == "transformers"
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["base_model_relation"] == relation
    assert data["pipeline_tag"] == "text-classification"
    assert data["datasets"] == ["PolyAI/banking77"]
    assert data["language"] == ["en"]
    assert data["license"] == "apache-2.0"
    assert data["metrics"] == ["accuracy"]


def test_tags_name_the_methods_that_this_model_went_through():
    tags = [metadata(model_card(example_report(), entry=i))["tags"] for i in range(3)]
    assert tags == [
        ["hf-shrink"],
        ["hf-shrink", "forward_kl", "distillation"],
        ["hf-shrink", "forward_kl", "onnx-int8"],
    ]


def test_model_index_holds_the_measured_value():
    card = model_card(example_report(), entry=1, repo_id="user/small")
    (index,) = metadata(card)["model-index"]
    (result,) = index["results"]
    assert index["name"] == "small"
    assert result["dataset"] == {"name": "PolyAI/banking77", "type": "PolyAI/banking77", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "Accuracy", "value": 0.922}]
    parsed = ModelCardData(**{k: v for k, v in metadata(card).items() if k != "model-index"}, model_name="small")
    assert parsed.base_model == "sentence-transformers/all-MiniLM-L6-v2"


def test_same_report_same_bytes(tmp_path):
    report = example_report()
    report.to_json(tmp_path / "report.json")
    again = type(report).from_json(tmp_path / "report.json")
    assert model_card(again).encode() == model_card(report).encode()


def test_losses_are_said_and_so_is_what_cannot_be_shown():
    assert "**Verdict:** student lost 0.9 points (p = 0.0081): a real loss." in model_card(example_report(), entry=1)
    assert "no difference that these rows can show" in model_card(example_report()).split("## Results")[0]
    assert "**Verdict:**" not in model_card(example_report(), entry=0)


def test_a_slower_larger_model_is_called_so():
    report = example_report()
    worse = replace(report, entries=(report.entries[2], replace(report.entries[0], method="distillation")))
    head = model_card(worse).split("## Results")[0]
    assert "5.11× larger on disk" in head
    assert "6.71× slower" in head
    assert "× smaller" not in head


def test_body_holds_table_methods_papers_and_limits():
    card = model_card(example_report(), repo_id="user/small")
    assert example_report().to_markdown().strip() in card
    assert "[arXiv:1503.02531](https://arxiv.org/abs/1503.02531)" in card
    assert "`temperature=2`, `alpha=0.5`" in card
    assert "The student keeps layers 0, 2 and 5 of the original." in card
    assert "otherwise than the original on 4.9 % of these rows" in card
    assert "cc-by-4.0" in card
    assert f"Made with [hf_shrink]({REPOSITORY}) 0.1.0" in card


def test_the_repository_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == REPOSITORY


def test_onnx_models_load_through_optimum_or_onnxruntime():
    card = model_card(example_report(), repo_id="user/small")
    assert "ORTModelForSequenceClassification.from_pretrained(source)" in card
    assert "onnxruntime.InferenceSession(graph)" in card
    student = model_card(example_report(), entry=1, repo_id="user/small")
    assert "model = AutoModelForSequenceClassification.from_pretrained(source)" in student
    assert "onnxruntime.InferenceSession" not in student


def test_what_was_not_measured_is_neither_claimed_nor_hidden():
    report = example_report()
    bare = dataclasses.replace(
        report,
        entries=tuple(type(e)(name=e.name, method=e.method) for e in report.entries),
        environment=None,
        interval=None,
        provenance=Provenance(),
    )
    card = model_card(bare)
    data = front_matter(card)[0]
    assert validate_card(card, "model")[0] == []
    assert not {"model-index", "metrics", "base_model", "base_model_relation", "license", "datasets"} & set(data)
    assert "Not measured: the quality, the size on disk, the parameters, the MACs, the latency" in card
    assert "smaller on disk" not in card
    assert "McNemar" not in card


def test_names_that_are_no_hub_ids_stay_out_of_the_metadata():
    report = example_report()
    origin = replace(report.provenance, datasets=("my own tickets", "PolyAI/banking77"), language=("no",))
    card = model_card(replace(report, provenance=origin))
    data = metadata(card)
    assert data["datasets"] == ["PolyAI/banking77"]
    assert data["language"] == ["no"]  # YAML 1.1 reads a bare `no` as false
    assert "Training data: my own tickets, PolyAI/banking77" in card


def test_entry_out_of_range():
    with pytest.raises(ShrinkError, match=r"`entry` must be in \[-3, 2\], got 3"):
        model_card(example_report(), entry=3)


def test_papers_that_are_no_arxiv_number():
    assert paper_link("https://onnxruntime.ai") == "https://onnxruntime.ai"
    assert paper_link("arXiv:1503.02531v2") == "[arXiv:1503.02531v2](https://arxiv.org/abs/1503.02531v2)"


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="'title' is undefined"):
        render("training_card", {})


@pytest.mark.parametrize("method", [None, "onnx-int8"])
@pytest.mark.parametrize("task", [*TASKS, "something else"])
def test_loading_code_is_python(task, method):
    code = loading_code(task, "user/small", method)
    compile(code, task, "exec")
    assert ("ORTModel" in code) == (method is not None)


def training(**options):
    facts = {"task": "single_label_classification", "hyperparameters": {"temperature": 2.0}, "metrics": {}}
    return training_card("student", **{**facts, **options})


def test_training_card_claims_only_what_was_logged():
    card = training(
        teacher_model="big",
        metrics={"eval_accuracy": 0.5, "eval_loss": 1.25, "eval_runtime": 3.0, "eval_samples_per_second": 9.0},
        datasets=["PolyAI/banking77"],
        base_model="user/base",
        license="mit",
        language=["en"],
        tags=["distillation"],
        methods=[MethodUse("forward_kl", "Knowledge distillation", "arXiv:1503.02531")],
    )
    data = metadata(card)
    assert data["metrics"] == ["accuracy"]
    assert data["tags"] == ["hf-shrink", "forward_kl", "distillation"]
    assert data["base_model_relation"] == "finetune"
    assert "| accuracy | 0.5 |" in card
    assert "| loss | 1.25 |" in card
    assert "runtime" not in card
    assert "per_second" not in card
    assert "| temperature | 2 |" in card
    assert "the teacher big" in card
    assert "nothing is claimed" in card


def test_training_card_of_little():
    card = training()
    assert validate_card(card, "model")[0] == []
    assert not {"metrics", "base_model", "datasets", "license"} & set(front_matter(card)[0])
    assert "Last evaluation" not in card
    assert "distilled from" not in card


def test_training_card_of_an_adapter():
    data = front_matter(training(library_name="peft", base_model="user/base"))[0]
    assert (data["library_name"], data["base_model_relation"]) == ("peft", "adapter")
