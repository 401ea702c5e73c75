import json
from dataclasses import replace

import pytest

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import Entry, ShrinkReport
from tests.evaluation.example import example_latency, example_report


def test_ratios_are_of_the_last_against_the_first():
    report = example_report()
    assert (report.original.name, report.shrunk.name) == ("teacher", "student int8")
    assert report.retention == pytest.approx(0.9198 / 0.931)
    assert report.size_ratio == pytest.approx(90_985_000 / 17_812_000)
    assert report.speedup == pytest.approx(6.84 / 1.02)
    assert report.agreement == 0.951
    assert report.retention_of(report.entries[1]) == pytest.approx(0.922 / 0.931)


def test_where_lower_is_better_a_higher_value_retains_less():
    entries = (Entry("a", value=20.0), Entry("b", value=25.0))
    report = replace(example_report(), metric="perplexity", percent=False, higher_is_better=False, entries=entries)
    assert report.retention == pytest.approx(0.8)


def test_what_was_not_measured_is_not_claimed():
    bare = replace(example_report(), entries=(Entry("a"), Entry("b")))
    assert (bare.retention, bare.size_ratio, bare.speedup, bare.agreement) == (None, None, None, None)
    negative = replace(example_report(), entries=(Entry("a", value=-0.1), Entry("b", value=0.2)))
    assert negative.retention is None  # of a negative correlation nothing can be kept


def test_json_round_trip_is_exact(tmp_path):
    report = example_report()
    path = report.to_json(tmp_path / "shrink_report.json")
    assert ShrinkReport.from_json(path) == report
    bare = ShrinkReport("regression", "mse", "x", None, 3, (Entry("a", latency=example_latency(0.1 + 0.2)),))
    assert ShrinkReport.from_json(bare.to_json(tmp_path / "bare.json")) == bare


def test_schema_is_fixed(tmp_path):
    values = json.loads(example_report().to_json(tmp_path / "r.json").read_text())
    assert values["schema_version"] == 1
    assert list(values["entries"][0]) == [
        *("name", "method", "value", "low", "high", "agreement", "p_value", "difference_low", "difference_high"),
        *("size_bytes", "parameters", "macs", "macs_note", "latency", "peak_memory_bytes"),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_and_nothing_written(tmp_path, value):
    report = example_report()
    for wrong in (Entry("bad", value=value), Entry("bad", latency=example_latency(value))):
        with pytest.raises(ShrinkError, match="`entries` must hold finite numbers, got NaN or infinity in .'bad: "):
            replace(report, entries=(*report.entries, wrong)).to_json(tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "`path` must hold JSON"),
        ("[]", "`path` must be a report of schema 1, got None"),
        ('{"schema_version": 2}', "`path` must be a report of schema 1, got 2 .*Update hf_shrink"),
        ('{"schema_version": 1, "entries": []}', "`path` must be a report of hf_shrink"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ShrinkError, match=message):
        ShrinkReport.from_json(tmp_path / "r.json")


def test_a_missing_file_and_an_empty_report_are_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`path` must be a file that exists"):
        ShrinkReport.from_json(tmp_path / "r.json")
    with pytest.raises(ShrinkError, match="`entries` must hold the original at least"):
        replace(example_report(), entries=())
