"""Dataset distillation: a small real subset that trains nearly as well, and what it takes to choose it."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DUPLICATE_METHODS": "hf_shrink.dataset_distillation.duplicate_methods",
        "Duplicates": "hf_shrink.dataset_distillation.duplicate_report",
        "SCORES": "hf_shrink.dataset_distillation.scores",
        "SELECTORS": "hf_shrink.dataset_distillation.selectors",
        "DatasetReport": "hf_shrink.dataset_distillation.report",
        "Candidates": "hf_shrink.dataset_distillation.candidates",
        "Picks": "hf_shrink.dataset_distillation.candidates",
        "deduplicate": "hf_shrink.dataset_distillation.duplicates",
        "distill_dataset": "hf_shrink.dataset_distillation.distill",
        "TrainingDynamicsCallback": "hf_shrink.dataset_distillation.dynamics_callback",
        "attach_soft_labels": "hf_shrink.dataset_distillation.soft_labels",
        "check_embeddings": "hf_shrink.dataset_distillation.embeddings",
        "encode": "hf_shrink.dataset_distillation.encoder",
        "find_duplicates": "hf_shrink.dataset_distillation.duplicates",
        "score_dataset": "hf_shrink.dataset_distillation.scoring",
    },
)
