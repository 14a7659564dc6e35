"""Average precision of detections whose value is known."""

from __future__ import annotations

import pytest
import torch
from tiny_coco import tiny_coco
from torch import nn

from locallearn.detection.coco import Coco
from locallearn.detection.metrics import average_precision

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools


class Knowing(nn.Module):
    """Answers the truth, shifted to the right by a share of its width."""

    def __init__(self, coco: Coco, shift: float) -> None:
        super().__init__()
        self.coco, self.shift, self.keys = coco, shift, iter(coco.ids)

    def forward(self, images):
        target = self.coco.target(next(self.keys), tuple(images[0].shape[1:]))
        boxes = target["boxes"].clone()
        width = ((boxes[:, 2] - boxes[:, 0]) * self.shift).round()
        boxes[:, 0::2] += width[:, None]
        masks = torch.stack([mask.roll(int(w), 1) for mask, w in zip(target["masks"].float(), width, strict=True)])
        scores = torch.ones(len(boxes))
        return [{"boxes": boxes, "labels": target["labels"], "scores": scores, "masks": masks[:, None]}]


def test_average_precision_of_the_truth_and_beside_it(tmp_path):
    test = Coco(tiny_coco(tmp_path / "set"), "val2017")
    found = average_precision(Knowing(test, 0.0), test, device=torch.device("cpu"))
    assert all(value == pytest.approx(1.0) for value in found.values())
    assert len(found) == 6
    beside = average_precision(Knowing(test, 0.25), test, device=torch.device("cpu"))  # overlaps by 0.75 / 1.25 = 0.6
    assert (beside["box_ap50"], beside["box_ap75"]) == (pytest.approx(1.0), 0.0)
    assert 0.15 < beside["box_ap"] < 0.45
    assert beside["mask_ap50"] < 1.0 == found["mask_ap50"]  # a triangle overlaps itself less
