"""Teacher and student must speak of the same things: class order by name, token ids by vocabulary."""

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hf_shrink.errors import ShrinkError


def align_classes(student: PretrainedConfig, teacher: PretrainedConfig) -> torch.Tensor | None:
    """Where each of the student's classes stands in the teacher's logits.

    Args:
        student: The student's config, with `id2label`.
        teacher: The teacher's config, with `id2label`.

    Returns:
        Index of shape (C,) with `teacher_logits[..., index]` in the student's order, or None where the orders agree.
        Names that nobody chose (`LABEL_0`, …) are taken to be in the same order.

    Raises:
        ShrinkError: If the label sets differ: a loss over unrelated classes would train without complaint.
    """
    names, teacher_names = _names(student), _names(teacher)
    if len(names) != len(teacher_names):
        raise ShrinkError(
            f"`teacher_model` must have the student's {len(names)} labels, got {len(teacher_names)}. Fine-tune the "
            "teacher on this task, or make the student from it with make_student()."
        )
    if names == teacher_names or _generic(names) or _generic(teacher_names):
        return None
    if set(names) != set(teacher_names):
        missing = sorted(set(names) - set(teacher_names))
        raise ShrinkError(
            f"`teacher_model` must have the student's labels, but does not know {missing[:5]}"
            f"{' …' if len(missing) > 5 else ''} and has {sorted(set(teacher_names) - set(names))[:5]} instead. "
            "Give both models the same `id2label` names, or choose a teacher of this task."
        )
    position = {name: i for i, name in enumerate(teacher_names)}
    return torch.tensor([position[name] for name in names])


def check_vocabularies(
    student: PretrainedConfig,
    teacher: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Refuse a teacher that reads other token ids than the student is fed.

    Args:
        student: The student's config.
        teacher: The teacher's config.
        tokenizer: The one that makes the inputs, where there is one.
        teacher_tokenizer: The teacher's own, where it was loaded by name.

    Raises:
        ShrinkError: If the vocabularies differ by more than padding rows that no token uses.
    """
    if tokenizer is not None and teacher_tokenizer is not None:
        own, theirs = tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
        if own != theirs:
            raise ShrinkError(
                f"`teacher_model` must use the tokenizer of `processing_class`, but the vocabularies differ "
                f"({len(theirs)} and {len(own)} tokens, {len(own.items() & theirs.items())} in common). The teacher "
                "would read other words than the student: choose a teacher with the same tokenizer."
            )
    sizes = _vocabulary_size(student), _vocabulary_size(teacher)
    if None in sizes or sizes[0] == sizes[1]:
        return
    used = len(tokenizer) if tokenizer is not None else None
    if used is None or min(size for size in sizes if size is not None) < used:
        raise ShrinkError(
            f"`teacher_model` must have the student's vocabulary of {sizes[0]} tokens, got {sizes[1]}. Where one is "
            "a padded version of the other, give the tokenizer as `processing_class`; else choose another teacher."
        )


def _names(config: PretrainedConfig) -> list[str]:
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def _generic(names: list[str]) -> bool:
    return names == [f"LABEL_{i}" for i in range(len(names))]


def _vocabulary_size(config: PretrainedConfig) -> int | None:
    return config.to_dict().get("vocab_size")  # absent for vision and audio
