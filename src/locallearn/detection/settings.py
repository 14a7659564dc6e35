"""Settings of fine-tuning a detector."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from locallearn._utils.errors import LocalLearnError
from locallearn.training import AdamW, LoopSettings, OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class DetectSettings(LoopSettings):
    """All settings of a detection run: AugLocal's (A.7, Table 12) by default, where the paper gives them.

    The paper: Mask R-CNN with a feature pyramid, AdamW, 1x schedule (12 epochs), 16 images in a batch. It gives neither
    the learning rate, nor the frozen stages, nor the size of images; the defaults are the usual ones.

    Args:
        source: where the backbone comes from: a run folder of `locallearn train`, a checkpoint in it, or a folder of
            `locallearn export`.
        checkpoint: of a run folder: last or best.
        coco: folder with annotations/instances_train2017.json, instances_val2017.json, train2017/ and val2017/.
        images: how many images of each split to use; all by default.
        epochs: passes over the training images. The learning rate rises linearly for the first 500 steps, or the first
            epoch if that is shorter, and falls to a tenth after 8/12 of the epochs and again after 11/12.
        batch: images in a batch; with other numbers, change the learning rate in proportion.
        optimizer: the optimizer and its learning rate.
        frozen_stages: number of first stages whose weights are not trained; the stem belongs to the first.
        min_size: pixels of the shorter side of resized images,
        max_size: or of the longer side, whichever makes them smaller.
        channels: of each level of the feature pyramid.
        regions: number of regions per image on which the heads are trained.
        proposals: number of regions per image that the heads classify in evaluation.
        seed: of first weights, order, flips and the sampling of regions.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        threads: CPU threads.
        workers: processes that decode images; results do not depend on their number.
    """

    source: Path | None = None
    checkpoint: Literal["last", "best"] = "last"
    coco: Path = Path("data/coco")
    images: int | None = None
    epochs: int = 12
    batch: int = 16
    optimizer: OptimizerSettings = field(default_factory=lambda: AdamW(lr=2e-4, weight_decay=1e-4))
    frozen_stages: int = 1
    min_size: int = 800
    max_size: int = 1333
    channels: int = 256
    regions: int = 512
    proposals: int = 1000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    workers: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_seed(self.seed)
        self.refuse_below(0, "workers")
        self.refuse_below(1, "images", "batch", "threads", "channels", "regions", "proposals")
        self.refuse_below(32, "min_size", "max_size")
        if not 0 <= self.frozen_stages <= 4:
            raise LocalLearnError(f"frozen_stages={self.frozen_stages}: a backbone has four stages, so 0 to 4.")

    def make_stepper(self, net: nn.Module) -> Optimizer:
        return self.optimizer.make([parameter for parameter in net.parameters() if parameter.requires_grad])

    def lr(self, *, epoch: int, step: int, steps: int) -> float:
        fallen = sum(epoch > round(self.epochs * share / 12) for share in (8, 11))
        warm = min(500, steps)
        rise = min(1.0, (step + 1) / warm) if epoch == 1 else 1.0
        return self.optimizer.lr * rise * 0.1**fallen
