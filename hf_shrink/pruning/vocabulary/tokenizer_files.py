"""A tokenizer of the same class with another definition, by way of its own files."""

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

CONFIG, DEFINITION, ADDED = "tokenizer_config.json", "tokenizer.json", "added_tokens.json"
TEXT_PARTS = ("normalizer", "pre_tokenizer", "decoder")


def rebuild_tokenizer(
    tokenizer: PreTrainedTokenizerFast, parts: Mapping[str, Any], new_ids: Mapping[int, int]
) -> PreTrainedTokenizerFast:
    """Save a tokenizer, exchange its definition, and load it as anyone would.

    Args:
        tokenizer: It stays as it is.
        parts: The new definition.
        new_ids: New id of each token that stays.

    Returns:
        A tokenizer of the same class, with the same settings and chat template.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        # The old vocabulary in another format: classes that find it there may read it, and would copy it on.
        stale = {file for key, file in tokenizer.vocab_files_names.items() if key != "tokenizer_file"}
        for file in stale | {ADDED}:
            (folder / file).unlink(missing_ok=True)
        (folder / DEFINITION).write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
        _renumber_config(folder / CONFIG, new_ids)
        smaller = type(tokenizer).from_pretrained(folder)
    smaller.name_or_path = tokenizer.name_or_path
    warn_of_lost_parts(smaller, parts)
    return smaller


def _renumber_config(path: Path, new_ids: Mapping[int, int]) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        added = {str(new_ids[int(i)]): token for i, token in settings["added_tokens_decoder"].items()}
        settings["added_tokens_decoder"] = added
    path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


def warn_of_lost_parts(tokenizer: PreTrainedTokenizerFast, parts: Mapping[str, Any]) -> None:
    """Say so where a class makes something else of its files than they hold.

    Args:
        tokenizer: As it was loaded.
        parts: What its definition says.
    """
    there = json.loads(tokenizer.backend_tokenizer.to_str())
    lost = [part for part in TEXT_PARTS if there[part] != parts[part]]
    if lost:
        warnings.warn(
            f"{type(tokenizer).__name__} builds its own {' and '.join(lost)} when it is loaded, other than the given "
            "tokenizer's: texts beyond the corpus may be tokenized otherwise, as after any save_pretrained(). Make "
            "it a PreTrainedTokenizerFast(tokenizer_object=…) to keep what was changed by hand.",
            stacklevel=4,
        )
