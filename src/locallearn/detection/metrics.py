"""COCO's average precision of a detector."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from locallearn._utils.optional_imports import optional
from locallearn.detection.coco import Coco, EvaluationImages
from locallearn.detection.loading import loaded

METRICS = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")
_STATISTICS = ("ap", "ap50", "ap75")  # the first of COCOeval's


@torch.no_grad()
def average_precision(
    detector: nn.Module, coco: Coco, *, device: torch.device, workers: int = 0, autocast: torch.dtype | None = None
) -> dict[str, float]:
    """AP, AP50 and AP75 of boxes and of masks on a split, as COCO computes them.

    Args:
        detector: torchvision's Mask R-CNN; its mode is put back afterwards.
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
    images = EvaluationImages(coco)
    for ((key, image),) in loaded(images, [[index] for index in range(len(images))], workers=workers):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            (found,) = detector([image.to(device)])
        for box, mask in _as_coco(coco, key, {name: part.cpu() for name, part in found.items()}):
            boxes.append(box)
            masks.append(mask)
    detector.train(training)
    result: dict[str, float] = {}
    for name, kind, detections in (("box", "bbox", boxes), ("mask", "segm", masks)):
        values = _evaluated(coco, kind, detections)
        result |= {f"{name}_{key}": value for key, value in zip(_STATISTICS, values, strict=True)}
    return result


def _as_coco(coco: Coco, key: int, found: dict[str, Tensor]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Detections of an image as COCO lists them, boxes and masks apart, since areas are those of what is judged."""
    coding = optional("pycocotools.mask", extra="coco")
    corners = found["boxes"].double()
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    detections = []
    for index, (label, score) in enumerate(zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)):
        common = {"image_id": key, "category_id": coco.categories[label - 1], "score": score}
        pixels = np.asfortranarray((found["masks"][index, 0] > 0.5).numpy().astype(np.uint8))
        detections.append((common | {"bbox": sides[index]}, common | {"segmentation": coding.encode(pixels)}))
    return detections


def _evaluated(coco: Coco, kind: str, detections: list[dict[str, Any]]) -> list[float]:
    if not detections:
        return [0.0] * len(_STATISTICS)
    judge = optional("pycocotools.cocoeval", extra="coco").COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        run = judge(coco.api, coco.api.loadRes(detections), kind)
        run.params.imgIds = coco.ids
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [max(float(value), 0.0) for value in run.stats[: len(_STATISTICS)]]  # -1 where there is nothing to find
