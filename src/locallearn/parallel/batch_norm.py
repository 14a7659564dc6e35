"""Batch normalisation by the statistics of the whole batch, of which each process has a part."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over processes. In the gradient, each process's loss counts by its number of images."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, images: int, group: dist.ProcessGroup | None) -> Tensor:
        ctx.images, ctx.group = images, group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0] * ctx.images
        dist.all_reduce(total, group=ctx.group)
        return total / ctx.images, None, None


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """A batch normalisation of `torch.nn` whose statistics in training are those of all processes' images."""

    group: dist.ProcessGroup | None = None

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        images, count = len(input), input.numel() // input.shape[1]
        exact = input.to(torch.promote_types(input.dtype, torch.float32))  # sums in half precision are none
        sums = torch.cat([exact.sum(dims), exact.new_tensor([float(count)])])
        *_, everything = total = _SumOverProcesses.apply(sums, images, self.group)  # pyright: ignore[reportGeneralTypeIssues]
        mean = total[:-1] / everything
        shape = (1, -1, *(1 for _ in dims[1:]))
        centred = exact - mean.view(shape)
        variance = _SumOverProcesses.apply(centred.square().sum(dims), images, self.group) / everything
        if self.training and self.track_running_stats:
            self._move_statistics(mean.detach(), variance.detach() * everything / (everything - 1))
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """`BatchNorm1d` over all processes' images."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """`BatchNorm2d` over all processes' images."""


class SynchronisedBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """`BatchNorm3d` over all processes' images."""


_KINDS: dict[type, type[_Synchronised]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    nn.BatchNorm3d: SynchronisedBatchNorm3d,
}


def synchronise_batch_norm(network: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Let all batch normalisations of a network use the statistics of all processes' images.

    The layers stay the same objects with the same tensors; their class changes.

    Raises:
        LocalLearnError: a layer that normalises over the batch is of another class; the network is unchanged.
    """
    layers = [
        (name, part) for name, part in network.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    for name, part in layers:
        if type(part) not in _KINDS and not isinstance(part, _Synchronised):
            raise LocalLearnError(
                f"the statistics of layer {name!r}, a {type(part).__name__}, cannot be synchronised: only those of"
                " torch.nn's BatchNorm1d, 2d and 3d can."
            )
    for _, part in layers:
        part.__class__ = _KINDS.get(type(part), type(part))
        vars(part)["group"] = group
