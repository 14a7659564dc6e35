"""Channel maps and Grad-CAM of single images (HPFF, Fig. 6; MAN, Fig. 5; MLAAN, Fig. 5); Grad-CAM by captum."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from locallearn._chain.layout import Kind, Layout
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn.analysis.cache import Say, answered, silent
from locallearn.analysis.runs import Run, Watch, unwatched


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """What a layer answers to some test images.

    Attributes:
        layer: name of the layer.
        images: their numbers in the test split.
        pixels: uint8, (n, height, width, channels), as the network sees them.
        labels, predictions: true and predicted class of each image, indices into `classes`.
        classes: names.
        channels: the numbers of the channels shown, (k,): those that vary most over these images.
        maps: output of these channels, (n, k, h, w).
        grad_cam: Grad-CAM for each image's true class, (n, h, w): where the layer speaks for that class; not negative.
    """

    layer: str
    images: tuple[int, ...]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    classes: tuple[str, ...]
    channels: NDArray[np.int64]
    maps: NDArray[np.float32]
    grad_cam: NDArray[np.float32]


def feature_maps(
    run: Run,
    layer: str,
    images: Sequence[int],
    *,
    channels: int = 4,
    watch: Watch = unwatched,
    say: Say = silent,
) -> FeatureMaps:
    """Channel maps and Grad-CAM of test images after a layer.

    The result lies in `RUN/analysis/features-LAYER.json` and answers the same question again.

    Args:
        run: the run.
        layer: name of the layer.
        images: numbers of the images in the test split, from 0.
        channels: how many channels to take.
        watch: told of progress.
        say: told why an earlier result is not used.

    Raises:
        LocalLearnError: there is no such layer or image, or the layer's output is no map.
    """
    question = {"checkpoint": run.fingerprint, "layer": layer, "images": list(images), "channels": channels}

    def compute() -> dict[str, Any]:
        index, count = run.index_of(layer), len(run.data.test)
        if run.net.chain.layouts[index].kind is Kind.VECTOR:
            raise LocalLearnError(f"layer {layer!r} of {run.path} has vectors, not maps: choose an earlier layer.")
        run.net.chain.layout_of_map(index)
        if not images or not all(0 <= image < count for image in images):
            raise LocalLearnError(f"images={list(images)}: give numbers of test images from 0 to {count - 1}.")
        if channels < 1:
            raise LocalLearnError(f"channels={channels} must be at least 1.")
        watch(f"feature maps of {run.name} after {layer}", 0, 1)
        batches = run.testing(np.array(images), batch=len(images))
        inputs, labels = next(iter(batches.epoch(1)))
        chosen, maps = _channel_maps(run, index, inputs, channels)
        cam, logits = _grad_cam(run, index, inputs, labels)
        watch(f"feature maps of {run.name} after {layer}", 1, 1)
        return {
            "layer": layer,
            "images": list(images),
            "pixels": _packed(_pixels(run, inputs)),
            "labels": labels.tolist(),
            "predictions": logits.argmax(1).tolist(),
            "classes": list(run.card.classes),
            "channels": chosen.tolist(),
            "maps": _packed(maps.cpu().numpy()),
            "grad_cam": _packed(cam.cpu().numpy()),
        }

    result = answered(run.result(f"features-{layer}"), question, compute, say=say)
    return FeatureMaps(
        layer=result["layer"],
        images=tuple(result["images"]),
        pixels=_unpacked(result["pixels"]),
        labels=np.array(result["labels"]),
        predictions=np.array(result["predictions"]),
        classes=tuple(result["classes"]),
        channels=np.array(result["channels"]),
        maps=_unpacked(result["maps"]),
        grad_cam=_unpacked(result["grad_cam"]),
    )


def _channel_maps(run: Run, layer: int, images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The numbers of the channels that vary most over positions and images, (k,), and their maps, (n, k, h, w)."""
    maps = next(part for index, part in enumerate(run.outputs(images)) if index == layer).float()
    chosen = maps.std((0, 2, 3)).topk(min(count, maps.shape[1])).indices
    return chosen, maps[:, chosen]


class _Tap(nn.Module):
    """Passes a layer's output on unchanged, by way of `maps`, which gets it as a map."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.maps = layout, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        prefix = self.layout.prefix
        plain = Layout(self.layout.kind, self.layout.shape)
        grid = plain.from_carrying_map(self.maps(plain.to_map(x[:, prefix:] if prefix else x)))
        return torch.cat([x[:, :prefix], grid], 1) if prefix else grid.clone()  # the next layer may write on it


class _Copy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _grad_cam(run: Run, layer: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM for the true classes, (n, h, w), and the network's logits."""
    attr, chain = optional("captum.attr", extra="analysis"), run.net.chain
    tap = _Tap(chain.layouts[layer])
    before, after = chain.layers[: layer + 1], chain.layers[layer + 1 :]
    network = nn.Sequential(_Copy(), *before, tap, *after, chain.classifier)
    images = images.detach().clone().requires_grad_()
    cam = attr.LayerGradCam(network, tap.maps).attribute(images, target=labels, relu_attributions=True)
    with torch.no_grad():
        logits = run.net(images)
    return cam.detach()[:, 0], logits


def _pixels(run: Run, images: Tensor) -> NDArray[np.uint8]:
    """Normalised images as pixels, (n, height, width, channels)."""
    mean, std = (torch.tensor(part, device=images.device)[:, None, None] for part in (run.card.mean, run.card.std))
    return (images * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array for JSON, a tenth of the size of its numbers."""
    return {"type": array.dtype.name, "shape": array.shape, "base64": b64encode(array.tobytes()).decode()}


def _unpacked(value: Mapping[str, Any]) -> NDArray[Any]:
    return np.frombuffer(b64decode(value["base64"]), value["type"]).reshape(value["shape"])
