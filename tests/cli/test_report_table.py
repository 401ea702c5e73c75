from hf_shrink.cli.report_table import print_report
from tests.evaluation.example import example_report


def test_the_table_fits_an_ordinary_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    report = example_report()
    print_report(report)
    shown = capsys.readouterr().out
    assert "…" not in shown  # rich cuts what does not fit
    for entry in report.entries:
        assert entry.name in shown
    assert report.verdict(1).split(" (")[0] in shown.replace("\n", " ")
