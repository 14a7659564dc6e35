"""Lines of Python that build a network without locallearn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from locallearn._chain.layout import Shape
from locallearn._torch.vision_libraries import import_torchvision
from locallearn._utils.registry import names
from locallearn.models import CifarResNet, from_library
from locallearn.models.library import timm_arguments

_OURS = "locallearn.models."
_RENAMED = {"vgg13": "vgg13_bn", "vgg19": "vgg19_bn"}  # with BatchNorm, as torchvision calls them
_PARTS = (nn.Conv2d, nn.Linear, nn.Identity, nn.AdaptiveAvgPool2d)
"""Types whose `repr` is the code that builds them."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """How to build a network without locallearn.

    Attributes:
        library: "torchvision", "timm", or "" for a network of the user's own.
        architecture: the network's name there.
        lines: Python code that assigns the network to `model`.
    """

    library: str
    architecture: str
    lines: tuple[str, ...]


def model_source_of(model: nn.Module, name: str, *, classes: int, image_shape: Shape) -> ModelSource:
    """The source of a network that `make_model` built.

    Args:
        model: the network.
        name: its name, as the `model` of `TrainSettings`.
        classes: outputs.
        image_shape: channels, height, width of one image.
    """
    library, colon, network = name.partition(":")
    if colon and library == "timm":
        return ModelSource(library=library, architecture=network, lines=_timm(network, classes, image_shape))
    if colon:
        return _torchvision(model, network, classes, image_shape)
    path = names("models").get(name.lower(), name)
    network = path.rpartition(".")[2]
    if isinstance(model, CifarResNet):
        return ModelSource(library="torchvision", architecture=network, lines=_cifar_resnet(model))
    if path == _OURS + "cifar.vit_tiny":
        return ModelSource(library="torchvision", architecture="VisionTransformer", lines=_vit_tiny(model, classes))
    if path.startswith(_OURS):
        return _torchvision(model, _RENAMED.get(network, network), classes, image_shape)
    module = path.rpartition(".")[0]
    lines = (
        f"from {module} import {network}",
        f"model = {network}(num_classes={classes}, in_channels={image_shape[0]})",
    )
    return ModelSource(library="", architecture=path, lines=lines)


def _timm(network: str, classes: int, image_shape: Shape) -> tuple[str, ...]:
    arguments = {"num_classes": classes} | timm_arguments(network, *image_shape[:2])
    listed = "".join(f", {name}={value}" for name, value in arguments.items())
    return ("import timm", f"model = timm.create_model({network!r}{listed})")


def _torchvision(model: nn.Module, network: str, classes: int, image_shape: Shape) -> ModelSource:
    """Torchvision's network of this name, with lines that replace the layers in which ours differs."""
    import_torchvision()
    plain = from_library("torchvision", network, num_classes=classes, image_size=image_shape[1])
    size = f", image_size={image_shape[1]}" if hasattr(plain, "image_size") else ""
    lines = (
        "from torch import nn",
        "import torchvision",
        f"model = torchvision.models.get_model({network!r}, weights=None, num_classes={classes}{size})",
    )
    return ModelSource(library="torchvision", architecture=network, lines=(*lines, *_changes(plain, model)))


def _changes(plain: nn.Module, model: nn.Module) -> list[str]:
    """Lines that replace the layers in which `model` differs from `plain`."""
    ours = dict(model.named_modules())
    changed: list[str] = []
    for name, old in plain.named_modules():
        new = ours.get(name)
        if new is None or any(name.startswith(f"{before}.") for before in changed):
            continue  # a line replaces the module around it
        if isinstance(new, _PARTS) and repr(new) != repr(old):
            changed.append(name)
    return [f"model.set_submodule({name!r}, nn.{ours[name]!r})" for name in changed]


def _vit_tiny(model: nn.Module, classes: int) -> tuple[str, ...]:
    sizes = "image_size=32, patch_size=4, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768"
    return (
        "from torch import nn",
        "import torchvision",
        f"model = torchvision.models.VisionTransformer({sizes}, num_classes={classes})",
        f"model.conv_proj = nn.{model.conv_proj!r}",
    )


def _cifar_resnet(model: CifarResNet) -> tuple[str, ...]:
    """Torchvision has no ResNet of three stages, but its blocks form one with the same parameter names."""
    return (
        "from collections import OrderedDict",
        "from torch import nn",
        "from torchvision.models.resnet import BasicBlock",
        "def stage(before, width, stride):",
        "    projection = (nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))",
        "    first = BasicBlock(before, width, stride, nn.Sequential(*projection) if stride > 1 else None)",
        f"    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range({len(model.layer1) - 1})))",
        "model = nn.Sequential(OrderedDict(",
        f"    conv1=nn.{model.conv1!r}, bn1=nn.BatchNorm2d(16), relu=nn.ReLU(inplace=True),",
        "    layer1=stage(16, 16, 1), layer2=stage(16, 32, 2), layer3=stage(32, 64, 2),",
        f"    avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.{model.fc!r},",
        "))",
    )
