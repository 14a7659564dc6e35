"""What `LocalNet.backward` refuses before anything moves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from locallearn._chain.refusals import refuse_sharded
from locallearn._nn.losses import IGNORED
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted


def refuse_without_gradients() -> None:
    """Refuse a step under `torch.no_grad` or `torch.inference_mode`."""
    if not torch.is_grad_enabled():
        mode = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
        raise LocalLearnError(
            f"backward is called under torch.{mode}, where no gradient is computed: call it outside; nothing changed."
        )


def refuse_recomputing_compiled(memory: str) -> None:
    """Refuse to recompute what is compiled."""
    if memory != "fast":
        raise LocalLearnError(
            f"memory={memory} does not work with compile: the compiler decides what to recompute. Use one of them."
        )


def refuse_stepping_hooks(parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse hooks that may step a weight in the backward pass, where a module runs once more after it."""
    for name, parameter in parameters:
        if parameter._post_accumulate_grad_hooks:
            raise LocalLearnError(
                f"{name} has a hook that runs when its gradient is there and may step it, but memory='least' runs the"
                " module once more after that: step by on_complete, or use memory='lean'."
            )


def refuse_frozen(parameters: Iterable[nn.Parameter], step: int) -> None:
    """Refuse a step without a parameter to train."""
    if not any(parameter.requires_grad for parameter in parameters):
        raise LocalLearnError(
            f"all parameters are frozen at step {step + 1}, so nothing would be trained: set requires_grad of some."
        )


def refuse_other_images(images: Any, shape: tuple[int, ...]) -> None:
    """Refuse what is no batch of images of one shape."""
    if not isinstance(images, Tensor):
        raise LocalLearnError(
            f"images are a {type(images).__name__}: give a tensor (batch, channels, height, width), as by"
            " torch.as_tensor(images)."
        )
    refuse_other_layout("images", images)
    if images.shape[1:] != shape:
        given, expected = (" x ".join(map(str, found)) for found in (images.shape[1:], shape))
        raise LocalLearnError(
            f"images are {given or 'numbers'}, but localize was told input_shape {expected}: resize them, or call"
            " localize with their shape."
        )
    if not len(images):
        raise LocalLearnError("a batch without images: leave it out.")
    if images.is_inference():
        raise LocalLearnError("images were made under torch.inference_mode: make them outside, or give images.clone().")


def refuse_other_layout(what: str, tensor: Tensor) -> None:
    """Refuse sparse and nested tensors."""
    if tensor.is_nested:
        raise LocalLearnError(f"{what} are a nested tensor: give one of a single shape, as by torch.stack.")
    if tensor.layout is not torch.strided:
        raise LocalLearnError(f"{what} are a {tensor.layout} tensor: give {what}.to_dense().")


def refuse_image_type(images: Tensor, reference: Tensor, error: Exception | None = None) -> None:
    """Refuse images whose type or device the network cannot take.

    Args:
        images: the images.
        reference: a parameter of the network.
        error: what the network raised.
    """
    if images.device != reference.device:
        raise LocalLearnError(
            f"images are on {images.device} and the network on {reference.device}: give images.to(...) or move the net."
        ) from error
    if images.dtype == reference.dtype:
        return
    if images.is_complex():
        raise LocalLearnError(
            f"images are {images.dtype} and the network's parameters {reference.dtype}: give real numbers, such as"
            " images.abs()."
        ) from error
    scale = "" if images.is_floating_point() else " / 255"
    name = str(reference.dtype).removeprefix("torch.")
    raise LocalLearnError(
        f"images are {images.dtype} and the network's parameters {reference.dtype}: give"
        f" images.to(torch.{name}){scale}."
    ) from error


def refuse_other_labels(labels: Any, images: Tensor) -> None:
    """Refuse labels that are no tensor, or not one for each image."""
    if not isinstance(labels, Tensor):
        raise LocalLearnError(f"labels are a {type(labels).__name__}: give a tensor, as by torch.as_tensor(labels).")
    refuse_other_layout("labels", labels)
    if not labels.dim() or len(labels) != len(images):
        given = counted(len(labels), "label") if labels.dim() else "one number of labels"
        raise LocalLearnError(f"{given} for {counted(len(images), 'image')}: give one for each.")
    if labels.device != images.device:
        raise LocalLearnError(f"labels are on {labels.device} and images on {images.device}: move them together.")


def is_cross_entropy(loss: Any) -> bool:
    """Whether a loss is PyTorch's cross entropy, maybe with label smoothing and nothing else."""
    smoothed = getattr(loss, "func", None) is F.cross_entropy and loss.keywords.keys() <= {"label_smoothing"}
    return loss is F.cross_entropy or smoothed


def takes_one_class(loss: Any) -> bool:
    """Whether a loss is cross entropy in any form, so that each image has one class, or probabilities of one."""
    return is_cross_entropy(loss) or isinstance(getattr(loss, "func", None), nn.CrossEntropyLoss)


def refuse_label_shape(labels: Tensor, classes: int) -> None:
    """Refuse labels of a shape that cross entropy cannot take: (batch,) are indices, (batch, classes) probabilities."""
    shape = tuple(labels.shape)
    if labels.dim() == 1 or (shape[1:] == (classes,) and labels.is_floating_point()):
        return
    remedy = f"give class indices of shape ({shape[0]},), or probabilities of shape ({shape[0]}, {classes})"
    if shape[1:] == (1,):
        remedy = "give labels.squeeze(1)" + ("" if labels.dtype == torch.int64 else ".long()")
    elif shape[1:] == (classes,):
        remedy = "if they are one-hot, give labels.argmax(1)"
    raise LocalLearnError(
        f"labels are {labels.dtype} of shape {shape}, which cross entropy over {counted(classes, 'class')} cannot"
        f" take: {remedy}."
    )


def refuse_other_classes(labels: Tensor, classes: int, *, look: bool) -> None:
    """Refuse labels that cross entropy cannot take.

    Args:
        labels: class indices (batch,) as int64, or probabilities (batch, classes).
        classes: number of classes.
        look: whether to look at the values, for which an accelerator is waited for.
    """
    if labels.is_floating_point():
        if labels.dim() == 1:
            raise LocalLearnError(
                f"labels are {labels.dtype}: class indices are whole numbers, labels.long(); probabilities have shape"
                f" (batch, {classes})."
            )
        return
    if labels.dtype not in (torch.int64, torch.uint8):
        raise LocalLearnError(f"labels are {labels.dtype}: class indices are torch.int64, labels.long().")
    if not look:
        return
    own = labels[labels != IGNORED] if labels.dtype == torch.int64 else labels
    if not len(own):
        raise LocalLearnError(f"all labels are {IGNORED}, which the loss ignores: leave this batch out.")
    lowest, highest = int(own.min()), int(own.max())
    if lowest < 0 or highest >= classes:
        raise LocalLearnError(
            f"labels run from {lowest} to {highest}, but the network has {counted(classes, 'class')} (0 to"
            f" {classes - 1}): give the network more outputs, or correct the labels."
        )


class DistributedWatch:
    """Notices what averages gradients over processes in a forward pass of its own, which local learning never runs.

    Looking for wrappers takes as long as a step. They hold each parameter, so it is done anew only when the number of
    references to the parameters is one not seen before.
    """

    def __init__(self) -> None:
        self._counts: set[int] = set()

    def refuse(self, net: nn.Module) -> None:
        """Refuse a network inside of `DistributedDataParallel`, `replicate` or FSDP."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        refuse_sharded(net)
        parameters = list(net.parameters())
        count = sum(map(sys.getrefcount, parameters))
        names = {name for module in net.modules() for name in private_api.composed_by(module)}
        if "replicate" in names:
            raise _uses_own_forward("replicate")
        if count in self._counts:
            return
        own = set(map(id, parameters))
        kinds = set(_with_subclasses(DistributedDataParallel))  # asking each object's type by issubclass takes longest
        wrappers = [thing for thing in gc.get_objects() if type(thing) in kinds]
        if any(id(parameter) in own for wrapper in wrappers for parameter in wrapper.parameters()):
            raise _uses_own_forward("DistributedDataParallel")
        self._counts.add(count)


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


def _uses_own_forward(name: str) -> LocalLearnError:
    return LocalLearnError(
        f"{name} is around this network, but averages gradients only when its own forward runs, which local learning"
        " does not use: leave it out, and use locallearn.parallel.data(net), or average each module's gradients in"
        " on_complete with torch.distributed.all_reduce (docs/several-processes.md)."
    )
