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
    picture = Table(header_style="bold")
    for i, title in enumerate(header):
        picture.add_column(title, justify="left" if i == 0 else "right")
    for row in rows:
        picture.add_row(*row)
    console = Console()
    console.print(picture)
    console.print(conditions(report), style="dim")
    for i in range(1, len(report.entries)):
        console.print(f"• {report.verdict(i)}")
