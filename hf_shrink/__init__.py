"""Make Hugging Face models smaller and keep their quality."""

from hf_shrink.lazy import lazy_exports

__version__ = "0.1.0"

_EXPORTS = {
    "CRITERIA": "hf_shrink.pruning.criteria",
    "LAYER_SCORES": "hf_shrink.pruning.layer_scores",
    "LOSSES": "hf_shrink.distillation.losses",
    "METRICS": "hf_shrink.evaluation.metrics",
    "QUANTIZERS": "hf_shrink.quantization.backends",
    "SCORES": "hf_shrink.dataset_distillation.scores",
    "SELECTORS": "hf_shrink.dataset_distillation.selectors",
    "DistillationTrainer": "hf_shrink.distillation.trainer",
    "DistillationTrainingArguments": "hf_shrink.distillation.arguments",
    "MissingExtraError": "hf_shrink.errors",
    "PruningCallback": "hf_shrink.pruning.callback",
    "PruningConfig": "hf_shrink.pruning.config",
    "QuantizationAwareCallback": "hf_shrink.quantization.awareness",
    "QuantizedArtifact": "hf_shrink.quantization.artifact",
    "Seq2SeqDistillationTrainer": "hf_shrink.distillation.seq2seq_trainer",
    "Seq2SeqDistillationTrainingArguments": "hf_shrink.distillation.seq2seq_trainer",
    "ShrinkError": "hf_shrink.errors",
    "ShrinkReport": "hf_shrink.evaluation.report",
    "TeacherCache": "hf_shrink.distillation.cache",
    "TrainingDynamicsCallback": "hf_shrink.dataset_distillation.dynamics_callback",
    "cache_teacher": "hf_shrink.distillation.cache_writing",
    "compact": "hf_shrink.pruning.compaction",
    "compare": "hf_shrink.evaluation.comparison",
    "drop_layers": "hf_shrink.pruning.layer_removal",
    "encode": "hf_shrink.dataset_distillation.encoder",
    "explain_export": "hf_shrink.pruning.layout_costs",
    "layer_importance": "hf_shrink.pruning.layer_ranking",
    "load_sparse": "hf_shrink.pruning.sparse_files",
    "make_student": "hf_shrink.distillation.student",
    "measure": "hf_shrink.evaluation.measurement",
    "migrate_pruned_heads": "hf_shrink.pruning.pruned_heads",
    "prune": "hf_shrink.pruning.one_shot",
    "prune_vocabulary": "hf_shrink.pruning.vocabulary.cut",
    "pruning_sensitivity": "hf_shrink.pruning.sensitivity",
    "push_dataset_to_hub": "hf_shrink.hub.upload",
    "push_to_hub": "hf_shrink.hub.upload",
    "quantization_sensitivity": "hf_shrink.quantization.sensitivity",
    "quantize": "hf_shrink.quantization.export",
    "register_architecture": "hf_shrink.architectures",
    "save_pruned": "hf_shrink.pruning.layouts",
    "save_sparse": "hf_shrink.pruning.sparse_files",
    "sparsity_report": "hf_shrink.pruning.sparsity",
    "vocabulary_report": "hf_shrink.pruning.vocabulary.report",
}

__getattr__, __dir__, __all__ = lazy_exports(__name__, _EXPORTS)
