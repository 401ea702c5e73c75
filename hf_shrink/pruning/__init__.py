"""Pruning: a callback for any Trainer, masks without training, physically smaller models."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CRITERIA": "hf_shrink.pruning.criteria",
        "LAYER_SCORES": "hf_shrink.pruning.layer_scores",
        "STRUCTURES": "hf_shrink.pruning.structures",
        "ExportTable": "hf_shrink.pruning.layout_costs",
        "PruningCallback": "hf_shrink.pruning.callback",
        "PruningConfig": "hf_shrink.pruning.config",
        "SavedModel": "hf_shrink.pruning.layouts",
        "SensitivityTable": "hf_shrink.pruning.sensitivity",
        "SparsityReport": "hf_shrink.pruning.sparsity",
        "VocabularyReport": "hf_shrink.pruning.vocabulary.report",
        "compact": "hf_shrink.pruning.compaction",
        "drop_layers": "hf_shrink.pruning.layer_removal",
        "explain_export": "hf_shrink.pruning.layout_costs",
        "layer_importance": "hf_shrink.pruning.layer_ranking",
        "load_sparse": "hf_shrink.pruning.sparse_files",
        "merge_adapters": "hf_shrink.pruning.adapters",
        "migrate_pruned_heads": "hf_shrink.pruning.pruned_heads",
        "prune": "hf_shrink.pruning.one_shot",
        "prune_vocabulary": "hf_shrink.pruning.vocabulary.cut",
        "pruning_sensitivity": "hf_shrink.pruning.sensitivity",
        "save_pruned": "hf_shrink.pruning.layouts",
        "save_sparse": "hf_shrink.pruning.sparse_files",
        "sparsity_report": "hf_shrink.pruning.sparsity",
        "vocabulary_report": "hf_shrink.pruning.vocabulary.report",
    },
)
