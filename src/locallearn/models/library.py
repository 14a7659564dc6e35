"""Any network of torchvision or timm, by its name there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from locallearn._torch.vision_libraries import import_timm, import_torchvision
from locallearn._utils.errors import LocalLearnError, did_you_mean, reason_of, refuse_unknown
from locallearn.models.published import with_channels

LIBRARIES = ("torchvision", "timm")


def from_library(
    library: str, name: str, *, num_classes: int, in_channels: int = 3, image_size: int = 224
) -> nn.Module:
    """A network with first weights of its own.

    Args:
        library: "torchvision" or "timm".
        name: the network's name there.
        num_classes: outputs.
        in_channels: channels of the images.
        image_size: height and width of the images, for networks with a fixed image size, transformers for instance.

    Raises:
        LocalLearnError: the library is not installed, has no network of this name, or none for images of this size.
    """
    refuse_unknown("library", library, LIBRARIES)
    make = _torchvision if library == "torchvision" else _timm
    return make(name, num_classes, in_channels, image_size)


def is_of_torchvision(name: str) -> bool:
    """Whether torchvision is installed and has a network of this name."""
    try:
        models = import_torchvision().models
    except LocalLearnError:
        return False
    return name in models.list_models(models)


def _torchvision(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    models = import_torchvision().models
    known = models.list_models(models)
    if name not in known:
        raise LocalLearnError(f"torchvision has no network {name!r}; {did_you_mean(name, known)}")
    with _in_a_sentence("torchvision", name, image_size):
        try:
            model = models.get_model(name, weights=None, num_classes=num_classes, image_size=image_size)
        except TypeError:  # most networks take images of any size
            model = models.get_model(name, weights=None, num_classes=num_classes)
    return with_channels(model, in_channels)


def _timm(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(name):
        raise LocalLearnError(f"timm has no network {name!r}; {did_you_mean(name, timm.list_models())}")
    arguments = timm_arguments(name, in_channels, image_size)
    with _in_a_sentence("timm", name, image_size):
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)


def timm_arguments(name: str, in_channels: int, image_size: int) -> dict[str, int]:
    """Arguments of `timm.create_model` besides the number of classes: `img_size` is for networks of one size alone."""
    settings = import_timm().get_pretrained_cfg(name, allow_unregistered=True)
    size = {"img_size": image_size} if settings is not None and settings.fixed_input_size else {}
    return {"in_chans": in_channels} | size


@contextmanager
def _in_a_sentence(library: str, name: str, image_size: int) -> Iterator[None]:
    """Turn an error of a constructor into one sentence."""
    try:
        yield
    except (AssertionError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise LocalLearnError(
            f"{library}:{name} cannot be made for images of {image_size} pixels: {reason_of(error)}."
        ) from error
