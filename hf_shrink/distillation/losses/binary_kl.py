"""Kullback-Leibler divergence of independent labels."""

import torch.nn.functional as F
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("binary_kl", paper="arXiv:2308.06453", compares="positions", outputs=("labels",))
def binary_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the teacher's probability of each label by itself (after Yang et al., 2023).

    Each label is a question of yes or no. The paper's part on logits sums over the labels at temperature 1. Here it is
    their mean, as in the usual loss on hard labels, softened as in Hinton et al. (2015). A softmax in its place would
    silently teach that more of one label is less of the others, and of a single label nothing.

    Args:
        student_logits: Shape (..., C), any floating dtype; the sigmoid's logarithms run in fp32 or wider.
        teacher_logits: Same shape, over the same labels in the same order.
        labels: Unused; part of the signature that all losses share.
        temperature: Above 0; higher is softer.

    Returns:
        Nats per position, mean over the labels, shape (...), times temperature squared: the gradient keeps its size at
        any temperature.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_logits, teacher_logits, temperature, "logits"):
        raise ShrinkError(fault)
    student, teacher = wide(student_logits) / temperature, wide(teacher_logits) / temperature  # (..., C)
    yes = F.kl_div(F.logsigmoid(student), F.logsigmoid(teacher), log_target=True, reduction="none")  # (..., C)
    # 1 - sigmoid is 0 in fp32 from a logit of 17 on, and its logarithm infinite: the other sign's is exact.
    no = F.kl_div(F.logsigmoid(-student), F.logsigmoid(-teacher), log_target=True, reduction="none")  # (..., C)
    return (yes + no).mean(-1) * temperature**2
