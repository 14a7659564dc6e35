"""Mean average precision: the accuracy of networks that give an image several labels."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    r"""The mean over classes of :math:`\sum_k (R_k - R_{k-1}) P_k`, with precision and recall at each score k.

    As `average_precision_score(average="macro")` of scikit-learn; classes that no image has are left out.

    Args:
        scores: (images, classes), such as logits.
        labels: (images, classes), of which those above 0.5 are true.
    """
    precisions = [
        _average_precision(score, label) for score, label in zip(scores.T, (labels > 0.5).T, strict=True) if label.any()
    ]
    return sum(precisions) / max(1, len(precisions))


def _average_precision(scores: Tensor, labels: Tensor) -> float:
    ranked, order = scores.sort(descending=True)
    hits = labels[order].cumsum(0).double()
    is_threshold = torch.ones_like(labels)
    is_threshold[:-1] = ranked[:-1] != ranked[1:]  # equal scores are taken together
    places = is_threshold.nonzero().flatten()
    found = hits[places]
    recalled = found.diff(prepend=found.new_zeros(1))
    return float((recalled * found / (places + 1)).sum() / hits[-1])
