"""What quantization leaves on disk, as something to load, measure and push."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.report import ShrinkReport
from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.hub import download, push_to_hub
from hf_shrink.inputs.models import load_model

RECORD = "hf_shrink.json"


@dataclass
class QuantizedArtifact:
    """A folder with a quantized model.

    Args:
        path: The folder.
        method: Name in `QUANTIZERS`.
        source: What the model was called before, as a report may say it.
        report: What was measured of it; None until then.
    """

    path: Path
    method: str
    source: str | None = None
    report: ShrinkReport | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """Weight files on disk."""
        return size_on_disk(self.path)

    def load(self) -> Any:
        """Load the model with the runtime that it was made for.

        Returns:
            A model with the usual call (`.logits`), `.config`, `.eval()` and `.to()`.
        """
        return load_model(self.path)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the folder with its card.

        Args:
            repo_id: Where to, as user/name.
            **options: As in `hf_shrink.push_to_hub`.

        Returns:
            Address of the commit.
        """
        return push_to_hub(self.path, repo_id, **{"report": self.report, **options})

    @classmethod
    def from_pretrained(cls, path_or_repo: str | Path) -> "QuantizedArtifact":
        """Find an artifact again.

        Args:
            path_or_repo: Folder that `quantize` wrote, or the Hub id that it was pushed to.

        Returns:
            The artifact, with its report where one lies beside it.

        Raises:
            ShrinkError: If it is not an artifact of this project.
        """
        folder = Path(path_or_repo).expanduser()
        if not folder.is_dir():
            folder = download(str(path_or_repo))
        record = folder / RECORD
        if not record.is_file():
            raise ShrinkError(
                f"`path_or_repo` must hold a {RECORD}, but {path_or_repo} does not. Make one with quantize()."
            )
        values = json.loads(record.read_text())
        report = folder / "shrink_report.json"
        return cls(
            folder, values["method"], values["source"], ShrinkReport.from_json(report) if report.exists() else None
        )

    def write_record(self, versions: dict[str, str]) -> None:
        """Write what `from_pretrained` reads.

        Args:
            versions: Library to version, for whoever has to find out later.
        """
        values = {"method": self.method, "source": self.source, "versions": versions}
        (self.path / RECORD).write_text(json.dumps(values, indent=2) + "\n")
