"""One training run from settings alone: data, network, rule, run folder."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._localize import localize
from locallearn._torch.device import device_name, device_of
from locallearn._utils.atomic_files import write_json
from locallearn._utils.errors import LocalLearnError, OutOfMemoryError
from locallearn._utils.registry import call, names
from locallearn.cost import peak_memory
from locallearn.data import DataSet, Feed, image_folder
from locallearn.models import from_library
from locallearn.rules import AugLocal, Rule
from locallearn.training.curves import draw_curves
from locallearn.training.data_card import DataCard
from locallearn.training.loop import Fit, Watcher
from locallearn.training.run_folder import RunFolder
from locallearn.training.settings import FitSettings
from locallearn.training.settings_text import as_yaml, rule_text


@dataclass(frozen=True, kw_only=True)
class TrainSettings(FitSettings):
    """All settings of a training run.

    Args:
        model: a name that `locallearn list` shows, `torchvision:NAME`, `timm:NAME`, or the dotted path of a function
            from (num_classes, in_channels).
        data: a name that `locallearn list` shows; the path of a folder of images in class folders, or of tar shards; or
            the dotted path of a function from a folder to a data set.
        rule: the training rule, wrappers around it: dgl, auglocal(depth=3), hpff(man(dgl)).
        modules: which layers make which local module: all (each its own), a number K, names or regular expressions of
            the modules' last layers, or a published split such as infopro-16.
        layers: a name, a list of names, or regular expressions, of the parts of the network that each end a layer;
            found by default.
        memory: fast, or lean to compute again in the backward pass whatever lowers the peak memory: about two thirds
            of the activations or less, in 1.1 to 1.4 times the time.
        overlap: experimental, not measured on a GPU yet: how many modules may still run backward while the next one
            runs forward; each adds the memory of one module.
        batch: images in a batch.
        seed: of weights, order and augmentation; the same for every rule.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        threads: CPU threads; results are equal bit for bit for equal numbers.
        channels_last: memory format of images and weights.
        train_images: how many images of the training split to use; all by default.
        image_size: height and width to which images are resized; by default their own, and 224 for image files.
        data_dir: folder of the data sets.
        workers: processes that decode image files; results do not depend on their number.
        bad_images: refuse stops at an image file that cannot be read, with its path; skip leaves it out and reports it.
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
    train_images: int | None = None
    image_size: int | None = None
    data_dir: Path = Path("data")
    workers: int = 4
    bad_images: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise LocalLearnError(f"seed={self.seed} must not be negative.")
        for name in ("batch", "threads", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LocalLearnError(f"{name}={value} must be at least 1.")
        if self.memory == "lean" and self.compile:
            raise LocalLearnError(
                "memory=lean and compile: compiled code decides itself what it keeps. Use one of them."
            )
        self.feed(torch.device("cpu"))  # refuses its settings

    def feed(self, device: torch.device) -> Feed:
        """How batches come to the network."""
        return Feed(
            batch=self.batch,
            device=device,
            channels_last=self.channels_last,
            workers=self.workers,
            bad_images=self.bad_images,
        )


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a network and fill a run folder.

    Args:
        settings: what to train and how.
        folder: the run folder; new, unless `resume`.
        resume: go on from the folder's last checkpoint, bit for bit.
        watcher: told how training goes.
        say: gets sentences that a person should see.

    Returns:
        The summary that is also in `result.json`: test_accuracy, best_accuracy, seconds_per_epoch (median),
        peak_activation_bytes, peak_total_bytes, backbone_parameters, auxiliary_parameters, epochs, folder.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    if settings.cuda_graphs and device.type != "cuda":
        raise LocalLearnError(f"cuda_graphs needs a CUDA GPU, but the device is {device}: leave it out.")
    images = data_of(settings)
    net = build(settings, images).to(device)
    drop_single = _leaves_single_image(net, settings, len(images.train), say)
    run = RunFolder(folder)
    if resume:
        run.refuse_other_settings(as_yaml(settings))
    else:
        run.create(as_yaml(settings), device=device_name(device))
        DataCard.of(images).write(run.data)
    micro_batch = -(-min(settings.batch, len(images.train)) // settings.accumulate)
    if settings.memory == "lean":
        say("memory=lean: finding what to compute again, in seconds; for cascades over many layers in a minute or two")
    peak = peak_memory(net, micro_batch, make_stepper=settings.make_stepper, autocast=settings.autocast)
    if settings.compile:
        net.compile()
    fit = Fit(
        net,
        images.training(settings.feed(device), seed=settings.seed, drop_single=drop_single),
        images.testing(settings.feed(device)),
        settings,
        folder=run,
        watcher=watcher,
    )
    if resume and run.last.exists():
        fit.resume()
    try:
        fit.run()
    except OutOfMemoryError as error:
        raise error.naming(settings.model, rule_text(settings.rule)) from None
    rows = run.rows()
    result = {
        "test_accuracy": rows[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in rows),
        "seconds_per_epoch": statistics.median(row["seconds"] for row in rows),
        "peak_activation_bytes": peak.activations,
        "peak_total_bytes": peak.total,
        "backbone_parameters": sum(p.numel() for p in net.model.parameters()),
        "auxiliary_parameters": sum(p.numel() for p in net.auxiliary.parameters()),
        "epochs": len(rows),
        "folder": str(folder),
    }
    write_json(run.result, result)
    draw_curves({str(settings.rule): rows}, run.curves)
    return result


def _leaves_single_image(net: LocalNet, settings: TrainSettings, count: int, say: Callable[[str], None]) -> bool:
    """Whether the last batch is a single image that cannot be trained on.

    Raises:
        LocalLearnError: another batch, or a micro-batch, is a single image, and some part needs several.
    """
    last = count % settings.batch
    sizes = {min(settings.batch, count), last} - {0}
    alone = {size for size in sizes if size // min(settings.accumulate, size) == 1}
    if not alone or net.needs_several is None:
        return False
    if alone == {1} and len(sizes) == 2:
        say(f"the last batch holds a single image and is left out: {net.needs_several} needs several to normalise.")
        return True
    raise LocalLearnError(
        f"a batch of {max(alone)} images in {settings.accumulate} parts leaves a single image in one, but"
        f" {net.needs_several} normalises over several: choose another batch or accumulate."
    )


def build(settings: TrainSettings, images: DataSet | DataCard) -> LocalNet:
    """The network of a run, on the CPU; equal settings but for the rule give equal backbone weights."""
    torch.manual_seed(settings.seed)
    model = make_model(settings.model, classes=len(images.classes), image_shape=images.image_shape)
    net = localize(
        model,
        settings.rule,
        modules=settings.modules,
        memory=settings.memory,
        overlap=settings.overlap,
        layers=settings.layers,
        input_shape=images.image_shape,
        seed=settings.seed,
        image_mean=[value / 255 for value in images.mean],
        image_std=[value / 255 for value in images.std],
    )
    if settings.channels_last:
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return net


def data_of(settings: TrainSettings) -> DataSet:
    """The data set of a run, as large in number and size of images as its settings say."""
    images = load_images(settings.data, settings.data_dir)
    if settings.train_images is not None:
        images = images.limited(settings.train_images)
    return images if settings.image_size is None else images.resized(settings.image_size)


def load_images(name: str, folder: Path) -> DataSet:
    """The data set that a name, the path of a folder with images, or a dotted path, stands for."""
    if name not in names("data") and (os.sep in name or Path(name).exists()):
        return image_folder(Path(name))
    images = call("data", name, folder)
    if not isinstance(images, DataSet):
        raise LocalLearnError(f"data set {name!r} gives a {type(images).__name__}, not a locallearn.data.DataSet.")
    return images


def make_model(name: str, *, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The backbone that a name, a dotted path, or `torchvision:NAME` or `timm:NAME` stands for."""
    channels, height, _ = image_shape
    library, colon, network = name.partition(":")
    if colon:
        return from_library(library, network, num_classes=classes, in_channels=channels, image_size=height)
    model = call("models", name, num_classes=classes, in_channels=channels)
    if not isinstance(model, nn.Module):
        raise LocalLearnError(f"model {name!r} gives a {type(model).__name__}, not a torch.nn.Module.")
    return model
