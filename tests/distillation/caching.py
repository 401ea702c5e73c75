"""A cache of each task's teacher, and the teacher itself beside it."""

from hf_shrink.distillation.cache_writing import cache_teacher
from hf_shrink.distillation.teacher import Teacher
from hf_shrink.distillation.views import view_of
from tests.distillation.tasks import TASK_CASES
from tests.models import tiny_tokenizer

TASK = "single_label_classification"


def make_cache(folder, task=TASK, **changes):
    """Cache the eight rows of a task."""
    case = TASK_CASES[task]
    given = {"teacher": case.teacher(), "dataset": case.rows(), "data_collator": case.collator(), "batch_size": 3}
    return cache_teacher(**{**given, "output_dir": folder, **changes})


def live_teacher(task=TASK, layers=(), pooling=None):
    """What the cache stands in for."""
    model = TASK_CASES[task].teacher()
    view = view_of(task, model.config, pooling=pooling or "mean", hide_padding=True)
    return Teacher(model, view, layers=layers, pooling=pooling)


def padded(collator_class, **options):
    """A collator that pads in another way than usual."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = options.pop("side", "right")
    return collator_class(tokenizer, **options)


class CountedForwards:
    """Rows that a model has read."""

    def __init__(self, model):
        self.rows = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        self.rows += len(kwargs["input_ids"])
