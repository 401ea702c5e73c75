"""A card is YAML metadata and a Jinja template; the same values give the same bytes."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from jinja2 import Environment, PackageLoader, StrictUndefined

REPOSITORY = "https://github.com/hf-shrink/hf_shrink"  # as in pyproject.toml; a test holds the two together
TAG = "hf-shrink"
FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(v\d+)?)", re.IGNORECASE)


def render(template: str, metadata: Mapping[str, Any], **values: Any) -> str:
    """Write a card.

    Args:
        template: Name of the file in `templates/`, without its endings.
        metadata: What the Hub reads; keys that are None or empty are left out.
        **values: What the template reads; one that is missing raises.

    Returns:
        The text of README.md.
    """
    known = {key: value for key, value in metadata.items() if value is not None and value != [] and value != ()}
    front = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000)
    body = _templates().get_template(f"{template}.md.jinja").render(repository=REPOSITORY, **values)
    return f"---\n{front}---\n\n{body.strip()}\n"


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """Take a card apart.

    Args:
        card: Text of a README.md.

    Returns:
        Its metadata (empty where there is none, or none that can be read), and the text below it.
    """
    found = FRONT_MATTER.match(card)
    if found is None:
        return {}, card
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, card
    return (metadata, card[found.end() :]) if isinstance(metadata, dict) else ({}, card)


def is_ours(card: str) -> bool:
    """Whether hf_shrink wrote a card, and may write it anew.

    Args:
        card: Text of a README.md.

    Returns:
        True if it bears the tag that all our cards bear.
    """
    return TAG in (split_card(card)[0].get("tags") or ())


def paper_link(paper: str) -> str:
    """A link to where a method comes from.

    Args:
        paper: Such as "arXiv:1503.02531" or "https://onnxruntime.ai".

    Returns:
        Markdown.
    """
    found = ARXIV.fullmatch(paper)
    return f"[{paper}](https://arxiv.org/abs/{found[1]})" if found else paper


def hub_ids(names: Iterable[str]) -> list[str]:
    """Those of some names that the Hub takes as ids; it refuses a card with any other.

    Args:
        names: Ids, and names of things that are not on the Hub.

    Returns:
        The ids, in order, each once.
    """
    return [name for name in dict.fromkeys(names) if _is_hub_id(name)]


def code_value(value: Any) -> str:
    """A value as it stands in a table.

    Args:
        value: Any JSON value.

    Returns:
        Markdown.
    """
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("hf_shrink.hub"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters["paper"] = paper_link
    environment.filters["cell"] = code_value
    environment.filters["lower_first"] = lambda text: text[:1].lower() + text[1:]
    return environment
