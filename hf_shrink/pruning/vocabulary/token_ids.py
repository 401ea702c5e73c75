"""The ids of tokens in a model's configs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

# What is suppressed or made likelier need not stay: a token that is gone never comes up.
OPTIONAL = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias")
NEEDED = ("forced_decoder_ids", "force_words_ids", "lang_to_id", "task_to_id")
NEEDED_ENDINGS = ("_token_id", "_token_ids")

Holder = PretrainedConfig | GenerationConfig
NewId = Callable[[int], int | None]


def configs_of(model: PreTrainedModel) -> list[Holder]:
    """Find the configs of a model.

    Args:
        model: Any.

    Returns:
        Each once: those of its modules, which may have copies of their own, and that of generation.
    """
    held = [vars(module).get(name) for module in model.modules() for name in ("config", "generation_config")]
    return list({id(config): config for config in held if isinstance(config, Holder)}.values())


def needed_ids(configs: Iterable[Holder]) -> set[int]:
    """Find the ids that must stay, since something is told or forced by them.

    Args:
        configs: Of one model.

    Returns:
        Ids from 0 on.
    """
    needed = set[int]()

    def note(i: int) -> int:
        needed.add(i)
        return i

    for config in configs:
        for fields in _holders_of(config):
            for name in [name for name in fields if _is_needed(name)]:
                _follow(name, fields[name], note)
    return needed


def renumber(config: Holder, new_ids: Mapping[int, int]) -> None:
    """Write the new ids into a config.

    Args:
        config: Changed in place. A list loses the entries that are gone; an id that was beyond the vocabulary, as
            defaults of the config class may be, becomes None.
        new_ids: New id of each id that stays.
    """
    for fields in _holders_of(config):
        for name in [name for name in fields if _is_needed(name) or name in OPTIONAL]:
            value = _follow(name, fields[name], new_ids.get)
            if fields is vars(config):
                setattr(config, name, value)
            else:
                fields[name] = value


def _holders_of(config: Holder) -> Iterator[dict[str, Any]]:
    yield vars(config)
    yield from (vars(config).get("task_specific_params") or {}).values()


def _is_needed(name: str) -> bool:
    return name in NEEDED or (name.endswith(NEEDED_ENDINGS) and not name.startswith("_"))


def _follow(name: str, value: Any, new_id: NewId) -> Any:
    """The value with new ids; None where nothing of it is left."""
    if name == "forced_decoder_ids" and value is not None:
        return [[place, None if i is None else new_id(i)] for place, i in value] or None
    if name == "sequence_bias" and value is not None:
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        found = [[_whole(ids, new_id), bias] for ids, bias in pairs]
        return [[ids, bias] for ids, bias in found if ids is not None] or None
    if isinstance(value, Mapping):
        return {key: _follow(name, item, new_id) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item for item in (_whole(item, new_id) for item in value) if item is not None] or None
    return _whole(value, new_id)


def _whole(value: Any, new_id: NewId) -> Any:
    """One id or a nested list of them; None if any of them is gone."""
    if isinstance(value, (list, tuple)):
        items = [_whole(item, new_id) for item in value]
        return None if None in items else items
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return new_id(value)
    return value
