"""Rows that say what their task's teacher would, as `attach_soft_labels` writes it."""

import torch
from datasets import List, Value

from tests.distillation.tasks import TASK_CASES

SOFT_TASKS = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "image_classification",
    "audio_classification",
)


def soft_rows(task=SOFT_TASKS[0], teacher=None, *, drop=()):
    """The eight rows of a task with the teacher's scores in half precision."""
    case = TASK_CASES[task]
    rows, teacher = case.rows(), case.teacher() if teacher is None else teacher
    batch = {name: value for name, value in case.collator()(list(rows)).items() if name != "labels"}
    with torch.no_grad():
        scores = teacher(**batch).logits
    feature = List(Value("float16"), length=scores.shape[1])
    return rows.remove_columns(list(drop)).add_column("soft_label", list(scores.half().numpy()), feature=feature)
