"""What quantization leaves on disk, as something to load, measure and push."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.report import ShrinkReport
from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.hub.files import REPORT
from hf_shrink.hub.snapshot import download
from hf_shrink.hub.upload import push_to_hub
from hf_shrink.inputs.models import load_model
from hf_shrink.inputs.remote import looks_like_path

RECORD = "quantization.json"


@dataclass
class QuantizedArtifact:
    """A folder with a quantized model.

    Args:
        path: The folder.
        method: Name in `QUANTIZERS`.
        source: What the model was called before, as a report may say it.
        report: What was measured of it; None until then. Set it, and a push takes it along.
    """

    path: Path
    method: str
    source: str | None = None
    report: ShrinkReport | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight files on disk."""
        return size_on_disk(self.path)

    @property
    def record(self) -> dict[str, Any]:
        """How it was made: method, source, task, options, proof of the reload, versions of the libraries."""
        return json.loads((self.path / RECORD).read_text(encoding="utf-8"))

    def load(self) -> Any:
        """Load the model with the runtime that it was made for.

        Returns:
            A model with the usual call (`.logits`), `.config`, `.eval()` and `.to()`.
        """
        return load_model(self.path)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the folder with its card, in one commit.

        Args:
            repo_id: Where to, as user/name.
            **options: As in `hf_shrink.push_to_hub`; `report` is the artifact's own unless one is given.

        Returns:
            Address of the commit.
        """
        return push_to_hub(self.path, repo_id, **{"report": self.report, **options})

    @classmethod
    def from_pretrained(
        cls, path_or_repo: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "QuantizedArtifact":
        """Find an artifact again.

        Args:
            path_or_repo: Folder that `quantize` wrote, or the Hub id that it was pushed to.
            revision: Branch, tag or commit on the Hub.
            token: The Hub's token; None takes the one of `hf auth login` or HF_TOKEN.

        Returns:
            The artifact, with its report where one lies beside it.

        Raises:
            ShrinkError: If it is not an artifact of this project, or the Hub refuses.
        """
        folder = Path(path_or_repo).expanduser()
        if not looks_like_path(path_or_repo):
            folder = download(str(path_or_repo), revision=revision, token=token)
        if not (folder / RECORD).is_file():
            raise ShrinkError(
                f"`path_or_repo` must hold a {RECORD}, but {path_or_repo} does not. Make one with quantize()."
            )
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        report = ShrinkReport.from_json(folder / REPORT) if (folder / REPORT).is_file() else None
        return cls(folder, values["method"], values["source"], report)
