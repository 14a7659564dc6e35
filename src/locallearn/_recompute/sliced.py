"""Backward passes of activations and convolutions a few images at a time.

A convolution behind a normalisation and an activation needs its input again in its backward pass, beside the gradients
of input and output; the activation needs it too. Made again for a few images at a time, it takes next to no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from locallearn._torch import private_api
from locallearn._torch.op_counter import repeated

_IMAGES = 4
"""At least in a slice."""

_SLICES = 16
"""At most."""


_few: ContextVar[bool] = ContextVar("few", default=False)


@contextmanager
def few_slices() -> Iterator[None]:
    """While active, the second slice stands for all that follow: of tensors without data they take the same bytes."""
    token = _few.set(True)
    try:
        yield
    finally:
        _few.reset(token)


def slices(images: int) -> Iterator[slice]:
    """Of so many images."""
    size = -(-images // max(1, min(_SLICES, images // _IMAGES)))
    starts = range(0, images, size)
    for start in starts[:1] if _few.get() else starts:
        yield slice(start, start + size)
    if _few.get() and images > size:
        with repeated((images - size) / min(size, images - size)):
            yield slice(size, 2 * size)


Activation = Callable[[Tensor, bool], Tensor]
"""Of a tensor, which may be written on."""


@dataclass(frozen=True)
class Pieces:
    """What a batch normalisation, a sum and an activation behind it, make of their source: any images of it alone.

    Attributes:
        sources: the input of the normalisation, (batch, channels, height, width), and what is added to its output;
            detached.
        scale, shift: what the normalisation with its batch's statistics does, (channels, 1, 1).
        activation: what follows.
        is_relu: whether that is a ReLU, whose gradient takes one operator.
    """

    sources: tuple[Tensor, ...]
    scale: Tensor
    shift: Tensor
    activation: Activation | None = None
    is_relu: bool = False

    @staticmethod
    def of_batch_norm(result: Tensor, source: Tensor, weight: Tensor | None, bias: Tensor | None) -> Pieces | None:
        """Those of a batch normalisation that has just run, or None where its statistics are not found."""
        statistics = private_api.batch_statistics(result)
        if statistics is None or source.dim() != 4:
            return None
        mean, scale = statistics
        with torch.no_grad():
            scale = scale if weight is None else scale * weight
            shift = -mean * scale if bias is None else bias - mean * scale
        return Pieces((source.detach(),), scale[:, None, None], shift[:, None, None])

    def followed_by(self, activation: Activation, *, is_relu: bool) -> Pieces:
        """With an activation behind."""
        return replace(self, activation=activation, is_relu=is_relu)

    def plus(self, other: Tensor) -> Pieces:
        """With a tensor added."""
        return replace(self, sources=(*self.sources, other.detach()))

    @property
    def is_open(self) -> bool:
        """Whether nothing but the normalisation has run."""
        return len(self.sources) == 1 and self.activation is None

    def without_sources(self) -> Pieces:
        """For a graph, which holds the sources itself."""
        return replace(self, sources=())

    def before_activation(self, sources: Sequence[Tensor], images: slice) -> Tensor:
        """What the activation is given, for some images."""
        source, *added = sources
        found = torch.addcmul(self.shift, source[images], self.scale).to(source.dtype)
        return found.add_(added[0][images]) if added else found

    def through_activation(self, sources: Sequence[Tensor], images: slice, gradient: Tensor, *, out: Tensor) -> None:
        """Write the gradient of what the activation is given, from that of the output, for some images."""
        assert self.activation is not None
        before = self.before_activation(sources, images)
        if self.is_relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, before, 0, grad_input=out)
            return
        with torch.enable_grad():
            after = self.activation(before.requires_grad_(), False)
        out.copy_(torch.autograd.grad(after, before, gradient)[0])

    def made(self, sources: Sequence[Tensor], images: slice) -> Tensor:
        """The output for some images."""
        found = self.before_activation(sources, images)
        return found if self.activation is None else self.activation(found, True)


def activated(features: Tensor, pieces: Pieces, run: Callable[[Tensor], Tensor]) -> Tensor:
    """What `run`, an activation that may work in place, makes of what `pieces`, with the activation, tell of."""
    return _Activated.apply(features, pieces, run, *pieces.sources)


def convolved(features: Tensor, pieces: Pieces, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    """The convolution of what `pieces` tell of."""
    return _Convolved.apply(features, weight, bias, pieces, settings, *pieces.sources)


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, pieces: Pieces, run: Callable[[Tensor], Tensor], *sources: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*sources)
        ctx.pieces = pieces.without_sources()
        result = run(features)
        if result is features:
            ctx.mark_dirty(features)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        sources = ctx.saved_tensors
        found = torch.empty_like(gradient)
        for images in slices(len(gradient)):
            ctx.pieces.through_activation(sources, images, gradient[images], out=found[images])
        return found, None, None, *(None for _ in sources)


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pieces: Pieces,
        settings: tuple[Any, ...],
        *sources: Tensor,
    ) -> Tensor:
        result = torch.conv2d(features, weight, bias, *settings)
        ctx.save_for_backward(weight, *sources)
        ctx.pieces = pieces.without_sources()
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.settings = settings
        ctx.types = result.dtype, features.dtype
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight, *sources = ctx.saved_tensors
        inner, outer = ctx.types  # that of mixed precision, and that of what was given
        stride, padding, dilation, groups = ctx.settings
        wanted = list(ctx.needs_input_grad[:3])
        own = weight.to(inner)
        features: Tensor | None = None
        sums: list[Tensor | None] = [None, None]
        for images in slices(len(gradient)):
            piece = ctx.pieces.made(sources, images).to(inner)
            given = gradient[images], piece, own, ctx.bias_sizes
            found, *shares = torch.ops.aten.convolution_backward(
                *given, stride, padding, dilation, False, [0, 0], groups, wanted
            )
            if wanted[0]:
                features = torch.empty_like(sources[0], dtype=outer) if features is None else features
                features[images] = found
            del piece, given, found
            sums = [_added(known, share, weight.dtype) for known, share in zip(sums, shares, strict=True)]
            del shares
        return features, *sums, None, None, *(None for _ in sources)


def _added(known: Tensor | None, share: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if share is None:
        return None
    return share.to(dtype) if known is None else known.add_(share)
