"""Write the README's generated parts: the method table, and the quickstart's numbers from the committed report."""

import re
from pathlib import Path

from hf_shrink.quantization import QUANTIZERS

from hf_shrink.distillation import LOSSES
from hf_shrink.evaluation import METRICS, ShrinkReport

ROOT = Path(__file__).parents[1]
KINDS = {"loss": LOSSES, "quantizer": QUANTIZERS, "metric": METRICS}


def method_table() -> str:
    """All registered methods, one a line."""
    lines = ["| kind | name | what it does | source |", "|---|---|---|---|"]
    for kind, registry in KINDS.items():
        for method in registry.values():
            lines.append(f"| {kind} | `{method.name}` | {method.summary} | {_link(method.paper)} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """The README with its generated parts made anew.

    Args:
        text: The README as it stands.

    Returns:
        The same text, other parts untouched.
    """
    report = ShrinkReport.from_json(ROOT / "model_cards" / "shrink_report.json")
    text = _between(text, "methods: made from the registries, held by a test", "methods", method_table())
    return _between(text, "quickstart-table", "quickstart-table", report.to_markdown().strip())


def _between(text: str, start: str, end: str, content: str) -> str:
    pattern = rf"(<!-- {re.escape(start)} -->\n).*?(<!-- /{re.escape(end)} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)


def _link(paper: str) -> str:
    number = paper.removeprefix("arXiv:")
    return f"[{paper}](https://arxiv.org/abs/{number})" if number != paper else f"[source]({paper})"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text()))
