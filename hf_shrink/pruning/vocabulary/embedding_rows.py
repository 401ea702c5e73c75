"""The rows of a model that belong to tokens: of embeddings, tied or untied heads, and biases."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.architectures import architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.cuts import build_skeleton, copy_with
from hf_shrink.pruning.vocabulary.token_ids import configs_of, renumber
from hf_shrink.versions import base_model


def token_embeddings(model: PreTrainedModel) -> nn.Module:
    """Find the embeddings of a model's tokens.

    Args:
        model: Of a known family.

    Returns:
        The module.

    Raises:
        ShrinkError: If the family is not known to load with fewer tokens, or the model reads none.
    """
    architecture = architecture_of(model)
    if "vocabulary" in architecture.cuts and architecture.token_embeddings is not None:
        found = dict(base_model(model).named_modules()).get(architecture.token_embeddings)
        if found is not None:
            return found
    raise ShrinkError(
        f"`model` must have token embeddings of which stock transformers loads fewer, got {type(model).__name__} "
        f"({model.config.model_type}), which has none. Give a model that reads or writes text."
    )


def fixed_padding(model: PreTrainedModel) -> int | None:
    """Find the id that the padding must keep, where positions are counted from it, as in RoBERTa.

    Args:
        model: Of a known family.

    Returns:
        The id; None where positions do not depend on it.
    """
    path = architecture_of(model).position_embeddings
    positions = None if path is None else dict(base_model(model).named_modules()).get(path)
    return positions.padding_idx if isinstance(positions, nn.Embedding) else None


def check_twin(model: PreTrainedModel, twin: PreTrainedModel) -> None:
    """Refuse a model that stock transformers would not load.

    Args:
        model: The model.
        twin: What its config describes.

    Raises:
        ShrinkError: If a weight has another shape, or one has more weights than the other.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ShrinkError(
                f"`model` must be as its config describes it, so that stock transformers loads the smaller one, got "
                f"{name} with the shape {found.get(name)} and not {expected.get(name)}. Merge adapters and undo other "
                "changes first."
            )


def cut_rows(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Copy a model with fewer tokens.

    Args:
        model: It stays as it is. No whole copy of its embeddings is made.
        kept: Old ids, in the order of the new ones.

    Returns:
        The copy. What was tied is tied, and all other weights are the same.
    """
    rows = torch.tensor(kept)
    cut = {id(weight): weight.detach().index_select(0, rows.to(weight.device)) for weight in _token_weights(model)}
    smaller = copy_with(model, cut)
    field = architecture_of(model).vocabulary_field
    new_ids = {old: new for new, old in enumerate(kept)}
    for config in configs_of(smaller):
        if field in vars(config):
            setattr(config, field, len(kept))
        renumber(config, new_ids)
    twin = build_skeleton(smaller, {})
    check_twin(smaller, twin)
    _write_numbers(smaller, build_skeleton(model, {}), twin)
    return smaller


def _token_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """Every parameter with one entry a token, a shared one once."""
    architecture = architecture_of(model)
    inner, whole = dict(base_model(model).named_modules()), dict(model.named_modules())
    tables = [token_embeddings(model), *(inner.get(path) for path in architecture.embedding_aliases)]
    tables += [whole.get(path) for path in architecture.output_embeddings]
    weights = [weight for table in tables if table is not None for weight in table.parameters(recurse=False)]
    biases = dict(model.named_parameters())
    weights += [biases[path] for path in architecture.vocabulary_biases if path in biases]
    return list({id(weight): weight for weight in weights}.values())


def _write_numbers(model: PreTrainedModel, before: PreTrainedModel, after: PreTrainedModel) -> None:
    """Let the modules' own numbers follow the config, such as `num_embeddings` and `padding_idx`."""
    old, new = dict(before.named_modules()), dict(after.named_modules())
    for name, module in model.named_modules():
        for key, value in vars(new[name]).items() if name in new and name in old else ():
            if isinstance(value, (int, type(None))) and vars(old[name]).get(key) != value:
                setattr(module, key, value)
