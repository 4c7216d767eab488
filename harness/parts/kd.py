"""Losses between a student's answers and a teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.parts.softening import Operator, soft_log_probabilities, soften


def divergences(student: Tensor, teacher: Tensor, temperature: float = 1.0, operator: Operator = "power") -> Tensor:
    """KL(S_T(teacher) || S_T(student)) times T^2, in nats, of each sample; of a text the mean over its tokens.

    Logits are (N, V) or (N, L, V); the result is (N,). The factor keeps the gradient's size when T changes (Hinton et
    al. 2015, section 2.1). No gradient reaches the teacher.
    """
    teacher = teacher.detach().float()
    log_student = soft_log_probabilities(student, temperature, operator)
    if operator == "top_k":
        target = soften(torch.softmax(teacher, -1), temperature, operator)
        log_target = target.clamp_min(1e-38).log()
    else:
        log_target = soft_log_probabilities(teacher, temperature, operator)
        target = log_target.exp()
    each = (target * (log_target - log_student)).sum(-1)
    return temperature**2 * each.flatten(1).mean(1) if each.ndim > 1 else temperature**2 * each
