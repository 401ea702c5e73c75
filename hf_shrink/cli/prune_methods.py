"""What card and report say of the methods that `hf-shrink prune` ran."""

from collections.abc import Sequence

from transformers import TrainingArguments

from hf_shrink.cli.distill_settings import ON_CARD
from hf_shrink.cli.prune_settings import Pruning, Words, pruning_configs
from hf_shrink.evaluation import MethodUse
from hf_shrink.inputs import dataset_name
from hf_shrink.pruning import CRITERIA, VocabularyReport
from hf_shrink.pruning.one_shot import find_scope

SEARCH_PAPER = "arXiv:2204.09656"  # Kwon et al., 2022


def pruning_use(options: Pruning, args: TrainingArguments | None) -> MethodUse:
    """What the card says of pruning by a share.

    Args:
        options: What was asked for.
        args: What was trained with, if anything was.

    Returns:
        The method with its real values.
    """
    criterion, configs = CRITERIA[options.criterion], pruning_configs(options)
    shares = list(dict.fromkeys(config.final_sparsity for config in configs))
    first = configs[0].structure
    values = {
        "structure": options.structure or first,
        "sparsity": shares[0] if len(shares) == 1 else shares,
        "scope": configs[0].scope if args else find_scope(criterion, first, options.compared),
        **options.patterns,
    }
    title = "Pruning"
    if args is not None:
        title = "Pruning during fine-tuning" if options.teacher is None else "Pruning in the same run"
        values |= {"schedule": configs[0].schedule, **options.schedule}
    if args is not None and options.teacher is None:  # else the distillation's own entry says how it was trained
        values |= {name: vars(args)[name] for name in (*ON_CARD, *options.training) if name in vars(args)}
    return MethodUse(criterion.name, title, criterion.paper, {"seed": options.seed, **values})


def search_use(options: Pruning, structures: Sequence[str], layout: str, rows: int) -> MethodUse:
    """What the card says of pruning within constraints.

    Args:
        options: What was asked for.
        structures: What could go.
        layout: Of the files.
        rows: Training rows that were read.

    Returns:
        The method with its real values.
    """
    values = {
        "seed": options.seed,
        "constraints": dict(options.constraints or {}),
        "structure": ",".join(structures),
        "method": options.criterion,
        "reconstruct": True,
        **options.search,
        "layout": layout,
        "calibration_size": rows,
    }
    return MethodUse(options.criterion, "Structured pruning", SEARCH_PAPER, values)


def vocabulary_use(words: Words, found: VocabularyReport) -> MethodUse:
    """What the card says of the vocabulary.

    Args:
        words: What was asked for.
        found: What came of it.

    Returns:
        The method with its real values.
    """
    values = {
        "corpus": dataset_name(words.corpus),
        **({} if words.split is None else {"split": words.split}),
        "min_count": words.min_count,
        **({"keep": list(words.keep)} if words.keep else {}),
        "tokens": f"{found.tokens_kept:,} of {found.tokens_total:,}",
    }
    return MethodUse("vocabulary_pruning", "Vocabulary pruning", None, values)
