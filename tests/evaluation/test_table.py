from dataclasses import replace

import pytest

from hf_shrink.evaluation import Entry
from hf_shrink.evaluation.table import conditions, drawbacks, format_bytes, format_count, metric_title, table
from hf_shrink.hub.card import model_card
from tests.evaluation.example import example_latency, example_report, example_student, example_teacher


def test_the_row_of_a_student():
    header, rows = table(example_report())
    assert dict(zip(header, rows[1], strict=True)) == {
        "Model": "student",
        "Accuracy (95 % interval)": "92.2 % (91.2 – 93.1)",
        "Retention": "99.0 %",
        "Agreement": "95.7 %",
        "Size": "69.7 MB",
        "Smaller": "1.31×",
        "Parameters": "17.4 M",
        "MACs": "86 M",
        "Latency p50 / p95": "3.61 / 4.15 ms",
        "Faster": "1.89×",
        "Peak memory": "171.0 MB",
    }
    assert dict(zip(header, rows[2], strict=True))["MACs"] == "86 M†"


def test_what_was_not_measured_is_a_dash():
    report = replace(example_report(), entries=(Entry("a"), Entry("b")), interval=None, environment=None)
    for row in table(report)[1]:
        assert set(row[1:]) == {"–"}
    text = report.to_markdown()
    assert "None" not in text
    assert "Latency:" not in text
    assert "MACs:" not in text


def test_markdown_is_one_table_with_conditions_and_verdicts():
    report = example_report()
    lines = report.to_markdown().splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[6] == conditions(report)
    assert lines[8:] == [f"- {report.verdict(1)}", f"- {report.verdict(2)}"]
    piped = replace(report, entries=(replace(example_teacher(), name="a|b"), example_student()))
    assert "| a\\|b |" in piped.to_markdown()


def test_larger_and_slower_is_said_and_not_hidden():
    fast, slow, same = (replace(example_report().entries[1], name=name) for name in ("fast", "slow", "same"))
    slow = replace(slow, latency=example_latency(2 * 6.84), size_bytes=2 * example_teacher().size_bytes)
    same = replace(same, latency=example_latency(1.02 * 6.84))
    report = replace(example_report(), entries=(example_teacher(), fast, slow, same))
    assert drawbacks(report, fast) == drawbacks(report, same) == []
    said = ["slow is 2.00× larger on disk than the original here.", "slow is 2.00× slower than the original here."]
    assert drawbacks(report, slow) == said
    assert report.to_markdown().splitlines()[-2:] == [f"- {words}" for words in said]
    assert all(f"- {words}" in model_card(report, entry=2) for words in said)


def test_conditions_name_all_that_the_numbers_hold_under():
    assert conditions(example_report()) == (
        "Measured on 3,080 rows of PolyAI/banking77, split test. Intervals: Wilson 95 %. MACs: one forward pass of "
        "1 × 16 tokens. MACs marked † are of the float source: student int8. Latency: batch 1 of 16 tokens, "
        "2 threads, 50 runs after warm-up on cpu (teacher float32, student float32, student int8 float32+int8). "
        "Machine: AMD EPYC 7B13, 2 cores; torch 2.13.0, transformers 5.23.0, onnxruntime 1.32.0."
    )


@pytest.mark.parametrize(
    ("change", "p_value", "interval", "sentence"),
    [
        (-0.009, 0.0081, None, "student lost 0.9 points (p = 0.0081): a real loss."),
        (-0.009, 1e-9, None, "student lost 0.9 points (p < 0.001): a real loss."),
        (0.02, 0.03, None, "student gained 2.0 points (p = 0.03): a real gain."),
        (-0.009, 0.21, None, "student changed by −0.9 points (p = 0.21): no difference that these rows can show."),
        (
            -0.009,
            None,
            (-0.02, -0.001),
            "student lost 0.9 points (the 95 % interval of the difference leaves out 0): a real loss.",
        ),
        (
            0.009,
            None,
            (-0.02, 0.03),
            "student changed by +0.9 points (the 95 % interval of the difference holds 0): "
            "no difference that these rows can show.",
        ),
        (-0.009, None, None, "student changed by −0.9 points; no test says whether that is more than chance."),
    ],
)
def test_verdicts(change, p_value, interval, sentence):
    low, high = interval or (None, None)
    student = Entry("student", value=0.93 + change, p_value=p_value, difference_low=low, difference_high=high)
    assert replace(example_report(), entries=(Entry("teacher", value=0.93), student)).verdict() == sentence


def test_where_lower_is_better_more_is_a_loss():
    student = Entry("student", value=25.0, difference_low=3.0, difference_high=6.0)
    report = replace(
        example_report(),
        metric="perplexity",
        percent=False,
        higher_is_better=False,
        entries=(Entry("teacher", value=20.5), student),
    )
    assert report.verdict().startswith("student lost 4.5 in Perplexity")
    assert table(report)[1][1][1] == "25"


def test_an_undefined_metric_claims_nothing():
    report = replace(example_report(), entries=(Entry("teacher", value=0.9), Entry("student")))
    assert report.verdict() == "student: the metric is undefined or was not measured, so nothing is claimed."


def test_numbers_in_words():
    assert [format_bytes(size) for size in (None, 812, 90_985_000, 1_340_000_000)] == [
        *("–", "0.8 kB", "91.0 MB", "1,340.0 MB")
    ]
    assert [format_count(count) for count in (None, 7, 22_742_861, 1_500_000_000)] == ["–", "7", "22.7 M", "1.5 G"]
    assert [metric_title(name) for name in ("f1", "f1_macro", "exact_match")] == ["F1", "F1 macro", "Exact match"]
