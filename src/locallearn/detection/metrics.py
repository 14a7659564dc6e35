"""COCO's metrics: average precision of boxes and masks."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from locallearn._torch.device import mixed
from locallearn._utils.optional_imports import optional
from locallearn.detection.coco import Coco
from locallearn.detection.loading import evaluation_images

METRICS = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")
_STATISTICS = ("ap", "ap50", "ap75")  # the first that COCOeval computes


@torch.no_grad()
def average_precision(
    detector: nn.Module, coco: Coco, *, device: torch.device, workers: int = 0, autocast: torch.dtype | None = None
) -> dict[str, float]:
    """AP, AP50 and AP75 of boxes and of masks on a split, as COCO computes them.

    Args:
        detector: torchvision's Mask R-CNN; its training mode is restored afterwards.
        coco: the split.
        device: where the detector is.
        workers: processes that decode images.
        autocast: dtype of mixed precision, or None.

    Returns:
        box_ap, box_ap50, box_ap75, mask_ap, mask_ap50, mask_ap75, from 0 to 1.
    """
    boxes: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    training = detector.training
    detector.eval()
    for key, image in evaluation_images(coco, workers=workers):
        with mixed(device, autocast):
            (detections,) = detector([image.to(device)])
        for box, mask in _as_coco(coco, key, {name: part.cpu() for name, part in detections.items()}):
            boxes.append(box)
            masks.append(mask)
    detector.train(training)
    result: dict[str, float] = {}
    for name, kind, detections in (("box", "bbox", boxes), ("mask", "segm", masks)):
        values = _evaluated(coco, kind, detections)
        result |= {f"{name}_{key}": value for key, value in zip(_STATISTICS, values, strict=True)}
    return result


def _as_coco(coco: Coco, key: int, detections: dict[str, Tensor]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Detections of an image as COCO lists them; boxes and masks apart, since each has its own area."""
    coding = optional("pycocotools.mask", extra="coco")
    corners = detections["boxes"].double()
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    labels, scores = detections["labels"].tolist(), detections["scores"].tolist()
    entries = []
    for index, (label, score) in enumerate(zip(labels, scores, strict=True)):
        common = {"image_id": key, "category_id": coco.categories[label - 1], "score": score}
        pixels = np.asfortranarray((detections["masks"][index, 0] > 0.5).numpy().astype(np.uint8))
        entries.append((common | {"bbox": sides[index]}, common | {"segmentation": coding.encode(pixels)}))
    return entries


def _evaluated(coco: Coco, kind: str, detections: list[dict[str, Any]]) -> list[float]:
    if not detections:
        return [0.0] * len(_STATISTICS)
    evaluator = optional("pycocotools.cocoeval", extra="coco").COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        run = evaluator(coco.api, coco.api.loadRes(detections), kind)
        run.params.imgIds = coco.ids
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [max(float(value), 0.0) for value in run.stats[: len(_STATISTICS)]]  # -1 where there are no objects
