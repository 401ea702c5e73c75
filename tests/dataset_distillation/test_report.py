import json

import pytest
from datasets import Dataset

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.coverage import Coverage
from hf_shrink.dataset_distillation.curve import CurvePoint
from hf_shrink.dataset_distillation.report import DatasetReport, Stage, TrialScore

FULL = DatasetReport(
    source="banking77",
    rows_before=9003,
    rows=450,
    budget="5 %",
    method="auto",
    selector="kmeans",
    options={},
    seed=3,
    paper="arXiv:1708.00489",
    verdict="It beat a stratified sample by 6.8 points on held-out rows (at least 6.0).",
    stages=(Stage("given", 9003, 9003), Stage("rows of test sets", 9003, 8900, {"exact": 3, "near": 100})),
    metric="accuracy",
    trials=(TrialScore("stratified", 0.8, 0.0, 0.0), TrialScore("kmeans", 0.868, 0.068, 0.06)),
    curve=(CurvePoint(450, 0.868, 0.02, 0.8, 0.03), CurvePoint(8900, 0.912, 0.01, 0.912, 0.01)),
    rows_for={"0.95": 450, "0.99": None},
    coverage=Coverage(0.165, 0.8),
    stratified_coverage=Coverage(0.221, 0.81),
    drift=0.0214,
    encoder="all-MiniLM-L6-v2",
    encode_seconds=20.4,
    select_seconds=31.2,
    cost_ratio=0.3,
    versions={"datasets": "5.2.0"},
)


def carried(report):
    rows = Dataset.from_dict({"text": ["x"]})
    rows.info.description = report.description()
    return rows


def test_a_report_comes_back_from_the_rows_that_carry_it():
    assert DatasetReport.of(carried(FULL)) == FULL


def test_a_report_comes_back_from_a_file(tmp_path):
    assert DatasetReport.from_dict(json.loads(FULL.to_json(tmp_path / "report.json").read_text())) == FULL


def test_the_words_hold_what_was_measured():
    text = FULL.to_markdown()
    for part in (
        "450 of 9,003 rows of banking77 (5 %), chosen by `kmeans` ([arXiv:1708.00489]",
        "It beat a stratified sample by 6.8 points",
        "| rows of test sets | 9,003 | 8,900 | exact: 3, near: 100 |",
        "| kmeans | 86.8 | +6.8 | +6.0 |",
        "| 450 | 86.8 ± 2.0 | 80.0 ± 3.0 |",
        "95 % of what all rows reach with 450 rows",
        "0.165 from the nearest kept one",
        "Classes moved by 2.14 %",
        "Embeddings by all-MiniLM-L6-v2 took 20 s; choosing took 31 s; together 0.3 of the time",
    ):
        assert part in text
    assert "99 %" not in text  # it was not reached


def test_nothing_is_said_of_what_was_not_measured():
    bare = DatasetReport("x", 10, 2, "2 rows", "random", "random", {}, 0, None, "It was not measured.")
    text = bare.to_markdown()
    assert "|" not in text
    assert "coverage" not in text
    assert DatasetReport.of(carried(bare)) == bare


def test_rows_without_a_report_say_so():
    with pytest.raises(ShrinkError, match="push with push_dataset_to_hub"):
        DatasetReport.of(Dataset.from_dict({"text": ["x"]}))


def test_a_report_of_another_version_is_refused():
    with pytest.raises(ShrinkError, match="of schema version 1, got 2"):
        DatasetReport.from_dict({**FULL.to_dict(), "schema_version": 2})
