"""Models that `localize` cannot take."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from locallearn._utils.errors import LocalLearnError

_SHARDED = frozenset({"DTensor", "FlatParameter"})
"""Names of classes, whose imports take long."""


def refuse_sharded(model: nn.Module) -> None:
    """Refuse parameters that FSDP shards."""
    for name, parameter in model.named_parameters():
        names = type(parameter).__name__, type(parameter.data).__name__
        if not _SHARDED.isdisjoint(names) or hasattr(parameter, "_is_flat_param"):
            raise LocalLearnError(
                f"parameter {name!r} is sharded over processes by FSDP, whose forward local learning does not use: give"
                " the network as it was before, and use locallearn.parallel.data (docs/several-processes.md)."
            )


def refuse_lazy(network: nn.Module, remedy: str) -> None:
    """Refuse a parameter that gets its size at the first run."""
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            raise LocalLearnError(f"parameter {name!r} of {type(network).__name__} has no size yet: {remedy}.")


def refuse_other_models(model: object) -> None:
    """Refuse what is no plain `nn.Module` with parameters, and say what to do.

    Raises:
        LocalLearnError: it is not.
    """
    if not isinstance(model, nn.Module):
        raise LocalLearnError(f"model={model!r} is no network: give an nn.Module, as from locallearn.models.")
    if isinstance(model, DistributedDataParallel | DataParallel):
        raise LocalLearnError(
            f"the network is wrapped in {type(model).__name__}, whose forward local learning does not use: give the"
            " network itself, and average gradients in on_complete (docs/several-processes.md)."
        )
    refuse_lazy(model, "run the network on a batch first")
    if torch.is_inference_mode_enabled() or any(parameter.is_inference() for parameter in model.parameters()):
        raise LocalLearnError(
            "the network is made or localized under torch.inference_mode, where nothing trains: do both outside."
        )
    for name, part in model.named_modules():
        place = f"{name!r} in the network" if name else "the network"
        if isinstance(part, torch.jit.ScriptModule):
            raise LocalLearnError(f"{place} is scripted by TorchScript: give the network as it was before torch.jit.")
        if isinstance(part, torch._dynamo.OptimizedModule):
            raise LocalLearnError(
                f"{place} is compiled by torch.compile: give the network as it was before, then call net.compile()."
            )
    refuse_sharded(model)
