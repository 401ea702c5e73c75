"""How many tokens a model has positions for."""

from transformers import PretrainedConfig

# These count positions from the padding id onwards, and so have fewer than their table has rows.
POSITIONS_AFTER_PADDING = frozenset(
    "camembert data2vec-text esm ibert lilt longformer luke mpnet roberta roberta-prelayernorm xlm-roberta "
    "xlm-roberta-xl xmod".split()
)


def max_positions(config: PretrainedConfig) -> int | None:
    """Tokens that a row may have at most.

    Args:
        config: The model's config.

    Returns:
        Tokens, or None where positions are relative and without end.
    """
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)  # an optional field: T5, for one, has none
    if positions is None or positions <= 0:
        return None
    padding = text.pad_token_id if text.model_type in POSITIONS_AFTER_PADDING else None
    return positions if padding is None else positions - padding - 1
