"""Model distillation: a student that learns from a teacher."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "LOSSES": "hf_shrink.distillation.losses",
        "DistillationTrainer": "hf_shrink.distillation.trainer",
        "DistillationTrainingArguments": "hf_shrink.distillation.arguments",
        "Seq2SeqDistillationTrainer": "hf_shrink.distillation.seq2seq_trainer",
        "Seq2SeqDistillationTrainingArguments": "hf_shrink.distillation.seq2seq_trainer",
        "TeacherCache": "hf_shrink.distillation.cache",
        "cache_teacher": "hf_shrink.distillation.cache_writing",
        "make_student": "hf_shrink.distillation.student",
    },
)
