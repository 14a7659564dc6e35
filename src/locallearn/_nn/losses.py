"""Local losses besides the task's own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted

IGNORED = -100
"""The label of images that losses leave out: PyTorch's default `ignore_index`."""

_NEVER = -1e4
"""A logit whose share of a softmax is zero."""


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy of all classes of all images, for images with any number of labels.

    Args:
        logits: (batch, classes).
        labels: (batch, classes), 1 for each label of an image and 0 for the others, or probabilities; or class indices
            (batch,), each an image's only label.
    """
    if labels.dim() == 1 and not labels.is_floating_point():
        labels = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    if labels.shape != logits.shape:
        raise LocalLearnError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, which binary cross entropy over"
            f" {counted(logits.shape[1], 'class')} cannot take: give 0 or 1 for each class, of shape"
            f" {tuple(logits.shape)}."
        )
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def channel_deviations(features: Tensor) -> Tensor:
    """Standard deviation of each channel over its positions, unbiased: (batch, channels). A single position has 0."""
    if features.shape[2:].numel() == 1:
        return 0.0 * features.flatten(1)
    if torch.compiler.is_compiling():
        return features.std((2, 3))
    return _Deviations.apply(features)


class _Deviations(torch.autograd.Function):
    """`Tensor.std` over height and width, which takes ten times as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        exact = _at_least_float32(features)
        mean = exact.mean((2, 3), keepdim=True)
        deviations = ((exact - mean).square_().sum((2, 3)) / (features.shape[2:].numel() - 1)).sqrt_()
        ctx.save_for_backward(features, mean, deviations)
        return deviations.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features, mean, deviations = ctx.saved_tensors
        scale = gradients[0] / (deviations * (features.shape[2:].numel() - 1))
        scale = scale.masked_fill(deviations == 0, 0.0)[:, :, None, None]
        return (features - mean).mul_(scale).to(features.dtype)


def similarity(rows: Tensor) -> Tensor:
    """Cosine similarity of rows, each centred on its own mean: (batch, n) to (batch, batch) in [-1, 1]."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    unit = centred / (1e-8 + centred.norm(dim=1, keepdim=True))
    return (unit @ unit.T).clamp(-1, 1)


def similarity_matching(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean square of the difference between the similarities of features and of labels as vectors.

    Source: PredSim, official code, `train.py`; all entries of the batch x batch matrix count, the diagonal too.

    Args:
        rows: (batch, n).
        labels: class indices (batch,), compared as one-hot vectors; or vectors (batch, classes), such as probabilities.
        classes: number of classes.
    """
    if labels.shape[1:] != (classes,):
        _refuse_other_labels("similarity matching", labels)
    with torch.autocast(rows.device.type, enabled=False):
        rows = _at_least_float32(rows)
        vectors, counted = labels, torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        if labels.dim() == 1:
            vectors, counted = labels[:, None] == torch.arange(classes, device=labels.device), labels != IGNORED
        difference = similarity(rows) - similarity(vectors.to(rows.dtype))
        pairs = counted[:, None] & counted[None, :]
        return (difference.square() * pairs).sum() / pairs.sum()


def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Supervised contrastive loss of one view (Khosla et al. 2020, L_out), as in InfoPro's official code.

    For each image the negative mean, over the others of its class, of the log softmax, over all others, of cosine
    similarity / temperature; then the mean over the batch, to which images without a partner add zero.

    Args:
        embeddings: (batch, n); normalised here.
        labels: class indices (batch,).
        temperature: divides the cosines.
    """
    _refuse_other_labels("the contrastive loss", labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(_at_least_float32(embeddings), dim=1)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        counted = labels != IGNORED
        others = (unit @ unit.T / temperature).masked_fill(~counted, _NEVER).masked_fill(itself, float("-inf"))
        partners = (labels[:, None] == labels[None, :]) & counted & ~itself
        if len(labels) == 1:
            return unit.sum() * 0.0  # no other image to compare with
        log_likelihood = others.log_softmax(dim=1).masked_fill(~partners, 0.0).sum(dim=1)
        return -(log_likelihood / partners.sum(dim=1).clamp(min=1)).sum() / counted.sum()


def reconstruction(logits: Tensor, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Mean binary cross entropy between sigmoid(logits) and the images, brought back to [0, 1].

    Rounding takes images x std + mean out of [0, 1], where binary cross entropy is not defined: they are clamped.

    Args:
        logits: (batch, channels, height, width).
        images: the network's input, of the same shape.
        mean: what the images have had subtracted in each channel, (channels, 1, 1).
        std: what they were divided by then.
    """
    return F.binary_cross_entropy_with_logits(logits.to(images.dtype), (images * std + mean).clamp(0, 1))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _refuse_other_labels(what: str, labels: Tensor) -> None:
    if labels.dim() != 1 or labels.is_floating_point():
        raise LocalLearnError(
            f"{what} compares classes: give one class index per image, not labels of"
            f" shape {tuple(labels.shape)} and type {labels.dtype}."
        )
