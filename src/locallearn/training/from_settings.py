"""What settings name: the data set, the backbone, and the network that trains locally."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._localize import localize
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import call, names
from locallearn.data import DataSet, image_folder
from locallearn.models import from_library
from locallearn.training.files.data_card import DataCard
from locallearn.training.settings import TrainSettings


def build(
    settings: TrainSettings, images: DataSet | DataCard, *, start: Callable[[nn.Module], None] = lambda _: None
) -> LocalNet:
    """The network of a run, on the CPU; runs that differ in the rule alone start from equal backbone weights.

    Args:
        settings: of the run.
        images: what it trains on.
        start: takes the backbone, as initialised, before local modules are made of it.
    """
    torch.manual_seed(settings.seed)
    model = make_model(settings.model, classes=len(images.classes), image_shape=images.image_shape)
    start(model)
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
    """The data set of a run, with the number and size of images that its settings ask for."""
    images = load_images(settings.data, settings.data_dir)
    if settings.train_images is not None:
        images = images.limited(settings.train_images)
    return images if settings.image_size is None else images.resized(settings.image_size)


def load_images(name: str, folder: Path) -> DataSet:
    """A data set by its name, the path of a folder with images, or a dotted path.

    Raises:
        LocalLearnError: there is none.
    """
    if name not in names("data") and (os.sep in name or Path(name).exists()):
        return image_folder(Path(name))
    images = call("data", name, folder)
    if not isinstance(images, DataSet):
        raise LocalLearnError(f"data set {name!r} is a {type(images).__name__}, not a locallearn.data.DataSet.")
    return images


def make_model(name: str, *, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A backbone by its name, a dotted path, `torchvision:NAME` or `timm:NAME`.

    Raises:
        LocalLearnError: there is none.
    """
    channels, height, _ = image_shape
    library, colon, network = name.partition(":")
    if colon:
        return from_library(library, network, num_classes=classes, in_channels=channels, image_size=height)
    model = call("models", name, num_classes=classes, in_channels=channels)
    if not isinstance(model, nn.Module):
        raise LocalLearnError(f"model {name!r} is a {type(model).__name__}, not a torch.nn.Module.")
    return model
