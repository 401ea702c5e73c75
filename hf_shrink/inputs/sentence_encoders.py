"""What sentence-transformers notes beside a model: how its vectors are made, and where it cuts a text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.pooling import pooling_of
from hf_shrink.inputs.remote import list_hub_files, looks_like_path

MODULES = "modules.json"
LENGTHS = "sentence_*_config.json"  # sentence_bert_config.json, and so on by architecture
UNDERSTOOD = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceEncoder:
    """Where the transformer of a sentence encoder lies, and how it is used.

    Args:
        source: Folder or Hub id of the transformer.
        pooling: Name in `POOLINGS`; None where nothing is said.
        max_length: Tokens a text is cut to; None where nothing is said.
    """

    source: str | Path
    pooling: str | None = None
    max_length: int | None = None


def read_sentence_encoder(source: str | Path, argument: str = "encoder") -> SentenceEncoder:
    """Read the settings of sentence-transformers, where a model has some.

    Args:
        source: Folder or Hub id.
        argument: What the user calls it.

    Returns:
        The settings; of a plain model the source alone.

    Raises:
        ShrinkError: If the vectors pass through more than a transformer, a pooling and a normalization.
    """
    folder = _settings_folder(source, argument)
    if folder is None:
        return SentenceEncoder(source)
    modules = {m["type"].split(".")[-1]: m["path"] for m in json.loads((folder / MODULES).read_text(encoding="utf-8"))}
    if strange := [name for name in modules if name not in UNDERSTOOD]:
        raise ShrinkError(
            f"`{argument}` must consist of {', '.join(UNDERSTOOD)}, but {source} has {strange[0]}. Encode the rows "
            "with sentence-transformers, and give what it makes as `embeddings`."
        )
    own = folder / modules.get("Transformer", "")
    if own != folder and not looks_like_path(source):
        own = Path(snapshot_download(str(source), allow_patterns=f"{modules['Transformer']}/*")) / own.name
    pooling = pooling_of(folder, modules["Pooling"]) if "Pooling" in modules else None
    return SentenceEncoder(source if own == folder else own, pooling, _max_length(own))


def _settings_folder(source: str | Path, argument: str) -> Path | None:
    """The folder with the settings; from the Hub they alone are fetched."""
    if looks_like_path(source):
        folder = Path(source).expanduser()
    elif MODULES in list_hub_files(str(source), argument=argument):
        folder = Path(snapshot_download(str(source), allow_patterns=[MODULES, "*Pooling/config.json", f"*{LENGTHS}"]))
    else:
        return None
    return folder if (folder / MODULES).is_file() else None


def _max_length(folder: Path) -> int | None:
    for file in sorted(folder.glob(LENGTHS)):
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if settings.get("max_seq_length"):
            return settings["max_seq_length"]
    return None
