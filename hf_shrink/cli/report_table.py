"""A report as a table in the terminal."""

from rich.console import Console
from rich.table import Table

from hf_shrink.evaluation import ShrinkReport
from hf_shrink.evaluation.table import conditions, table


def print_report(report: ShrinkReport) -> None:
    """Print the table, the conditions and the verdicts.

    Args:
        report: Any report.
    """
    header, rows = table(report)
    picture = Table(header_style="bold")  # a column a model: a row a model does not fit into 80 characters
    picture.add_column(header[0])
    for row in rows:
        picture.add_column(row[0], justify="right")
    for title, *values in zip(header[1:], *(row[1:] for row in rows), strict=True):
        picture.add_row(title, *values)
    console = Console()
    console.print(picture)
    console.print(conditions(report), style="dim")
    for i in range(1, len(report.entries)):
        console.print(f"• {report.verdict(i)}")
