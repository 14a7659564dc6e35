"""What settings name: the data set, the backbone, and the network that trains locally."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch.nn.functional as F
from torch import nn

from locallearn._chain.discovery import chain_of
from locallearn._chain.partition import partition
from locallearn._engine.local_net import LocalNet
from locallearn._localize import localize
from locallearn._nn.frozen import freeze
from locallearn._objectives.auxiliary import Loss
from locallearn._planning.by_cost import parse_cost_spec
from locallearn._torch.device import channels_last, seed_all
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import call, find, names
from locallearn.data import Batches, DataSet, Feed, MixedBatches, StreamedBatches, TensorBatches, image_folder
from locallearn.models import from_library
from locallearn.models.library import is_of_torchvision
from locallearn.training.files.data_card import DataCard
from locallearn.training.settings.train import LOSSES, TrainSettings


def build(
    settings: TrainSettings, images: DataSet | DataCard, *, start: Callable[[nn.Module], None] = lambda _: None
) -> LocalNet:
    """The network of a run, on the CPU; runs that differ in the rule alone start from equal backbone weights.

    Args:
        settings: of the run.
        images: what it trains on.
        start: takes the backbone, as initialised, before local modules are made of it.
    """
    seed_all(settings.seed)
    model = make_model(settings.model, classes=len(images.classes), image_shape=images.image_shape)
    start(model)
    modules = settings.modules
    if settings.freeze is not None:
        patterns = [settings.freeze] if isinstance(settings.freeze, str) else settings.freeze
        layers = chain_of(model, images.image_shape, settings.layers).layers
        freeze(model, layers, patterns)
        if parse_cost_spec(modules) is None:
            modules = _after_frozen(layers, partition(modules, list(layers)).ends)
    net = _localized(model, settings, images, modules)
    if settings.freeze is not None and modules is settings.modules:  # by cost, which only the whole network tells
        layers, ends = dict(zip(net.chain.names, net.chain.layers, strict=True)), net.partition.ends
        if len(modules := _after_frozen(layers, ends)) < len(ends):
            del net
            net = _localized(model, settings, images, modules)
    if settings.channels_last:
        channels_last(net)
    return net


def _localized(
    model: nn.Module, settings: TrainSettings, images: DataSet | DataCard, modules: int | str | list[str]
) -> LocalNet:
    return localize(
        model,
        settings.rule,
        modules=modules,
        memory=settings.memory,
        overlap=settings.overlap,
        layers=settings.layers,
        input_shape=images.image_shape,
        loss=_loss_of(settings),
        seed=settings.seed,
        image_mean=[value / 255 for value in images.mean],
        image_std=[value / 255 for value in images.std],
    )


def _after_frozen(layers: Mapping[str, nn.Module], ends: Sequence[int]) -> list[str]:
    """The last layers of local modules, without leading ones that are all frozen: these join the first trained one.

    An auxiliary network after frozen layers alone would train nothing but itself.
    """
    trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers.values()]
    first, names = trained.index(True) if True in trained else len(trained) - 1, list(layers)
    return [names[end] for end in ends if end >= first]


def _loss_of(settings: TrainSettings) -> Loss:
    if settings.label_smoothing:
        return partial(F.cross_entropy, label_smoothing=settings.label_smoothing)
    loss: Any = LOSSES.get(settings.loss) or find("losses", settings.loss)
    if callable(loss):
        return cast(Loss, loss)
    raise LocalLearnError(f"loss {settings.loss!r} is no function from logits and labels to a number.")


def training_batches(settings: TrainSettings, images: DataSet, feed: Feed, *, drop_single: bool) -> Batches:
    """The training split as batches, augmented and not yet mixed.

    Raises:
        LocalLearnError: the data set makes batches of its own, and would not augment them as the settings ask for.
    """
    batches = images.training(settings.training_feed(feed), seed=settings.seed, drop_single=drop_single)
    if settings.rand_augment is not None and not isinstance(batches, TensorBatches | StreamedBatches):
        raise LocalLearnError(
            f"{settings.data} makes its batches by {type(batches).__name__}, which does not know rand_augment: leave it"
            " out, and augment there."
        )
    return batches


def with_mixing(settings: TrainSettings, batches: Batches, feed: Feed, *, classes: int) -> Batches:
    """Training batches with mixup or CutMix, as the settings ask for.

    Raises:
        LocalLearnError: a process's part of a batch might lack the image before it.
    """
    if not settings.mixes:
        return batches
    ahead = settings.training_feed(feed).ahead
    if ahead and settings.bad_images == "skip":
        raise LocalLearnError(
            "mixup and cutmix pair the images of a batch over processes, so bad_images=skip does not work with them:"
            " mend the files, or use one process."
        )
    return MixedBatches(
        batches=batches, mixup=settings.mixup, cutmix=settings.cutmix, classes=classes, seed=settings.seed, ahead=ahead
    )


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
    if "." not in name and name.lower() not in names("models") and is_of_torchvision(name):
        raise LocalLearnError(f"unknown model {name!r}; did you mean 'torchvision:{name}'?")
    model = call("models", name, num_classes=classes, in_channels=channels)
    if not isinstance(model, nn.Module):
        raise LocalLearnError(f"model {name!r} is a {type(model).__name__}, not a torch.nn.Module.")
    return model
