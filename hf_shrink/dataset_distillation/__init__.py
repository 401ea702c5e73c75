"""Dataset distillation: a small real subset that trains nearly as well, and what it takes to choose it."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "SCORES": "hf_shrink.dataset_distillation.scores",
        "SELECTORS": "hf_shrink.dataset_distillation.selectors",
        "Candidates": "hf_shrink.dataset_distillation.candidates",
        "Picks": "hf_shrink.dataset_distillation.candidates",
        "TrainingDynamicsCallback": "hf_shrink.dataset_distillation.dynamics_callback",
        "check_embeddings": "hf_shrink.dataset_distillation.embeddings",
        "encode": "hf_shrink.dataset_distillation.encoder",
    },
)
