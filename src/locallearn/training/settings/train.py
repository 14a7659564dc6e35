"""All settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._engine.refusals import refuse_recomputing_compiled
from locallearn._nn.losses import binary_cross_entropy
from locallearn._objectives.auxiliary import Auxiliary, Loss
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.data import Feed
from locallearn.rules import AugLocal, Rule
from locallearn.training.processes.grid import sizes_in
from locallearn.training.settings.fit import FitSettings
from locallearn.training.settings.text import plain_settings

LOSSES: Mapping[str, Loss] = {"cross-entropy": F.cross_entropy, "binary-cross-entropy": binary_cross_entropy}
"""Losses by their names."""
NO_RESULT = ("data_dir", "workers", "checkpoint_every", "loggers", "eval_heads", "parallel_timeout")
"""Settings on which no result depends."""

_LARGEST_IMAGE = 2**14
_MOST_THREADS = 1024
_LEAST_TIMEOUT = 1


@dataclass(frozen=True, kw_only=True)
class TrainSettings(FitSettings):
    """All settings of a training run.

    Args:
        model: a name that `locallearn list` shows, `torchvision:NAME`, `timm:NAME`, or the dotted path of a function
            from (num_classes, in_channels).
        data: a name that `locallearn list` shows; the path of a folder of images in class folders, or of tar shards; or
            the dotted path of a function from a folder to a data set.
        rule: the training rule, such as auglocal(depth=3); wrappers take another rule, as in hpff(man(dgl)).
        modules: which layers make which local module: all (each its own), a number K, names or regular expressions of
            the modules' last layers, or a published split such as infopro-16.
        layers: names, or regular expressions of names, of the submodules that each end a layer; by default the layers
            are discovered.
        memory: fast; lean recomputes activations, modules and blocks in the backward pass where that lowers the peak of
            activations, in up to 1.25 times the time; least recomputes convolutions and outputs of modules too, where
            that lowers it by another tenth or more, at 1.1 to 1.4 times the arithmetic of lean. The results have the
            same bits.
        overlap: experimental, not yet measured on a GPU: number of modules whose backward passes may overlap the next
            module's forward pass, on a CUDA GPU; each adds the memory of one module. Not with memory=least.
        batch: images in a batch.
        seed: of weights, order and augmentation; the same for every rule.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        threads: CPU threads; equal numbers give equal bits.
        channels_last: memory format of images and weights.
        loss: cross-entropy; binary-cross-entropy, for images with several labels; or the dotted path of a function from
            logits (batch, classes) and labels to a number. Local losses that classify use it too.
        label_smoothing: share of each label that is spread evenly over all classes.
        mixup: a of the Beta distribution from which mixup draws its proportions, such as 0.2; 0 leaves it out.
        cutmix: the same of CutMix, such as 1; with both, each batch has one of them, chosen at random.
        rand_augment: how many operations of RandAugment each training image has, and their magnitude from 0 to 30, as
            in [2,9]; none by default.
        train_images: how many images of the training split to use; all by default.
        validation: share of the training images, or how many, to hold out as validation images, on which the best
            epoch is chosen; without it, the best epoch is chosen on the test images, as in the papers.
        init_from: a run folder, or a file of safetensors, whose weights the backbone starts from; a classifier of
            other classes starts anew.
        freeze: names of layers or modules of the backbone, or regular expressions of whole names, that stay as
            init_from has them: their weights are not trained, batch normalisation has its statistics. Leading layers
            that are all frozen have no auxiliary networks and no backward pass.
        image_size: height and width to which images are resized; by default their own, and 224 for image files.
        data_dir: folder of the data sets.
        workers: processes that decode image files; results do not depend on their number.
        bad_images: refuse stops at an image file that cannot be read, with its path; skip leaves it out and reports it.
        parallel: of several processes that torchrun started, data: each trains on its part of every batch; modules:
            each trains some of the local modules; or both, as in modules=2,data=2.
        synchronise_statistics: of several processes, whether batch normalisation has the statistics of the whole batch,
            or those of each process's part.
        replay_buffer: of processes that have some of the local modules each, the asynchronous form: each process trains
            on batches out of a buffer of this many, and waits for no other one. Such a run cannot be repeated.
        parallel_timeout: seconds after which a process that is silent, or does not go on, ends the run on all of them.
    """

    model: str = "resnet32"
    data: str = "cifar10"
    rule: Rule = field(default_factory=AugLocal)
    modules: int | str | list[str] = "all"
    memory: Memory = "fast"
    overlap: int = 0
    layers: str | list[str] | None = None
    batch: int = 128
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    channels_last: bool = True
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    rand_augment: tuple[int, ...] | None = None
    train_images: int | None = None
    validation: int | float | None = None
    init_from: Path | None = None
    freeze: str | list[str] | None = None
    image_size: int | None = None
    data_dir: Path = Path("data")
    workers: int = 4
    bad_images: Literal["refuse", "skip"] = "refuse"
    parallel: str | None = None
    synchronise_statistics: bool = False
    replay_buffer: int | None = None
    parallel_timeout: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_seed(self.seed)
        self.refuse_below(1, "batch", "threads", "image_size", "train_images", "replay_buffer")
        self.refuse_below(0, "label_smoothing", "mixup", "cutmix")
        if "." not in self.loss:
            refuse_unknown("loss", self.loss, tuple(LOSSES))
        if self.label_smoothing and self.loss != "cross-entropy":
            raise LocalLearnError(f"label_smoothing goes with cross-entropy, not with loss={self.loss}: leave it out.")
        if self.label_smoothing >= 1:
            raise LocalLearnError(f"label_smoothing={self.label_smoothing} is a share, from 0 to below 1.")
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise LocalLearnError(f"threads={self.threads} must be at most {_MOST_THREADS}.")
        if self.image_size is not None and self.image_size > _LARGEST_IMAGE:
            raise LocalLearnError(f"image_size={self.image_size} must be at most {_LARGEST_IMAGE}.")
        if self.compile:
            refuse_recomputing_compiled(self.memory)
        if self.validation is not None and not self._is_amount(self.validation):
            raise LocalLearnError(
                f"validation={self.validation} is neither a share of the training images, above 0 and below 1, nor a"
                " whole number of images, at least 1."
            )
        if self.early_stopping is not None and self.validation is None:
            raise LocalLearnError(
                "early_stopping would choose the epoch on the test images, whose accuracy is then too high: hold out"
                " validation images, as by --validation 0.1."
            )
        if self.freeze is not None and self.init_from is None:
            raise LocalLearnError(
                "freeze leaves parts of the network as they start, which would be random: give trained weights by"
                " --init-from."
            )
        self.training_feed(self.feed(torch.device("cpu")))  # it checks its own settings
        self._refuse_other_processes()
        plain_settings(self)  # refuses what settings.yaml could not hold

    @staticmethod
    def _is_amount(validation: float) -> bool:
        return validation >= 1 if isinstance(validation, int) else 0 < validation < 1

    def _refuse_other_processes(self) -> None:
        """Refuse settings of processes that do not fit together."""
        if self.parallel_timeout < _LEAST_TIMEOUT:
            raise LocalLearnError(f"parallel_timeout={self.parallel_timeout} must be at least {_LEAST_TIMEOUT} s.")
        if self.parallel is None:
            if self.synchronise_statistics:
                raise LocalLearnError("synchronise_statistics goes with several processes: add --parallel data.")
            if self.replay_buffer is not None:
                raise LocalLearnError("replay_buffer goes with several processes: add --parallel modules.")
            return
        names = sizes_in(self.parallel)
        if self.overlap:
            raise LocalLearnError(f"overlap={self.overlap} goes with one process alone: leave it out.")
        if self.replay_buffer is not None and names.keys() != {"modules"}:
            raise LocalLearnError(
                f"replay_buffer goes with --parallel modules alone, not with {self.parallel}: processes that share a"
                " batch train on it at the same time."
            )
        if "modules" in names and self.compile:
            raise LocalLearnError("compile does not work where processes have some of the modules: leave it out.")
        if "data" not in names and self.synchronise_statistics:
            raise LocalLearnError("synchronise_statistics goes with processes that share batches, as --parallel data.")
        if self.cuda_graphs:
            raise LocalLearnError("cuda_graphs does not share gradients among processes: leave it out.")
        if self.synchronise_statistics and (self.compile or self.memory != "fast"):
            other = "compile" if self.compile else f"memory={self.memory}"
            raise LocalLearnError(f"synchronise_statistics does not work with {other}: leave one of them out.")

    def refuse_device(self, device: torch.device) -> None:
        """Refuse settings that need a GPU on another device."""
        needing = "cuda_graphs" if self.cuda_graphs else f"overlap={self.overlap}" if self.overlap else None
        if needing is not None and device.type != "cuda":
            raise LocalLearnError(f"{needing} needs a CUDA GPU, but the device is {device}: leave it out.")

    def refuse_misfit(self, net: LocalNet, *, steps: int) -> None:
        super().refuse_misfit(net, steps=steps)
        parts = (part for objective in net.objectives for part in objective.auxiliary.modules())
        needing = next((part for part in parts if isinstance(part, Auxiliary) and part.needs_class_indices), None)
        if net.label_shape and needing is not None:
            several = f"images of {self.data} have several labels"
            why = "mixup and cutmix turn labels into probabilities" if self.mixes else several
            raise LocalLearnError(
                f"{why}, but {type(needing).__name__}, a part of {type(self.rule).__name__}, needs one class for each"
                " image: choose another rule."
            )

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def training_feed(self, feed: Feed) -> Feed:
        """How batches of training are read, where `feed` is how all are."""
        augment = None if self.rand_augment is None else tuple(self.rand_augment)
        return replace(feed, rand_augment=augment, ahead=self.mixes and feed.parts > 1)

    def testing_feed(self, feed: Feed) -> Feed:
        """How batches of tests are read: each process has one micro-batch at a time, so no test needs more than a step.

        Args:
            feed: how batches of training are.
        """
        own = -(-feed.batch // feed.parts)
        return replace(feed, batch=feed.parts * -(-own // self.accumulate))

    def feed(self, device: torch.device) -> Feed:
        """How batches are read."""
        return Feed(
            batch=self.batch,
            device=device,
            channels_last=self.channels_last,
            workers=self.workers,
            bad_images=self.bad_images,
        )
