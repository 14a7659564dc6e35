"""NMS and RoIAlign in plain PyTorch, for installations without torchvision's compiled operators."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from locallearn._torch.vision_libraries import declared_operators, import_torchvision


@cache
def import_detection() -> ModuleType:
    """Import torchvision; operators of this file replace its compiled ones where these are missing.

    Raises:
        LocalLearnError: torchvision is not installed.
    """
    torchvision = import_torchvision()
    if not torchvision.extension._has_ops():
        declared_operators().impl("nms", nms, "CPU")
        sys.modules["torchvision.ops.boxes"].__dict__["_assert_has_ops"] = lambda: None  # asks for all
        # torchvision's own Python form needs torch.compile, and gives each region the memory of the largest
        sys.modules["torchvision.ops.roi_align"].__dict__["_roi_align"] = roi_align
    return torchvision


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: of boxes that overlap by more than a threshold, keep the one with the highest score.

    Args:
        dets: (n, 4) boxes as x1, y1, x2, y2.
        scores: (n,).
        iou_threshold: intersection over union.

    Returns:
        Indices of the boxes to keep, highest score first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    corner, opposite = boxes[:, None, :2].maximum(boxes[:, :2]), boxes[:, None, 2:].minimum(boxes[:, 2:])
    common = (opposite - corner).clamp(min=0).prod(2)
    overlaps = (common > iou_threshold * (area[:, None] + area - common)).numpy()
    stays = torch.ones(len(boxes), dtype=torch.bool)
    kept = stays.numpy()
    for index, row in enumerate(overlaps):
        if kept[index]:
            kept[index + 1 :] &= ~row[index + 1 :]
    return order[stays]


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign (He et al. 2017, Mask R-CNN): each region as a small map of bilinear samples' means.

    It equals torchvision's for regions inside the image.

    Args:
        input: (images, channels, height, width).
        rois: (regions, 5): index of the image, x1, y1, x2, y2.
        spatial_scale: pixels of `input` per unit of the regions.
        pooled_height: of the small maps.
        pooled_width: of the small maps.
        sampling_ratio: samples of a cell in each direction; 0 or less takes about one per pixel.
        aligned: whether the centre of the first pixel is at 0.5.

    Returns:
        (regions, channels, pooled_height, pooled_width).
    """
    size = torch.tensor((pooled_width, pooled_height), dtype=rois.dtype)
    corners = rois[:, 1:].detach() * spatial_scale - 0.5 * aligned
    start, extent = corners[:, :2], corners[:, 2:] - corners[:, :2]
    extent = extent if aligned else extent.clamp(min=1)
    samples = torch.full_like(extent, sampling_ratio) if sampling_ratio > 0 else (extent / size).ceil().clamp(min=1)
    if not len(rois):
        return input.new_zeros((0, input.shape[1], pooled_height, pooled_width))
    parts: list[Tensor] = []
    indices: list[Tensor] = []
    kinds, kind_of = torch.cat([rois[:, :1], samples], dim=1).long().unique(dim=0, return_inverse=True)
    for index, (image, across, down) in enumerate(kinds.tolist()):
        mine = (kind_of == index).nonzero()[:, 0]
        x = _positions(start[mine, 0], extent[mine, 0], pooled_width * across, input.shape[3])
        y = _positions(start[mine, 1], extent[mine, 1], pooled_height * down, input.shape[2])
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
        regions, height, width, _ = grid.shape
        sampled = F.grid_sample(
            input[image, None].float(),
            grid.reshape(1, regions * height, width, 2).float(),
            padding_mode="border",
            align_corners=False,
        )
        means = F.avg_pool2d(sampled, (down, across))[0].unflatten(1, (regions, pooled_height))
        parts.append(means.transpose(0, 1).to(input.dtype))
        indices.append(mine)
    return torch.cat(parts)[torch.cat(indices).argsort()]


def _positions(start: Tensor, extent: Tensor, count: int, pixels: int) -> Tensor:
    """Positions of the samples along one direction, in the units of `grid_sample`: from -1 to 1 over all pixels."""
    steps = (torch.arange(count, dtype=start.dtype) + 0.5) / count
    return (2 * (start[:, None] + extent[:, None] * steps) + 1) / pixels - 1
