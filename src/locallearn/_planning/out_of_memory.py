"""The error for memory that runs out in a step: where it happened, and what to do."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._planning.prediction import peak_memory
from locallearn._torch.device import mixed_now
from locallearn._utils.errors import OutOfMemoryError
from locallearn._utils.quantities import counted, format_bytes, size_text


def explain_out_of_memory(net: LocalNet, images: Tensor, span: range) -> OutOfMemoryError:
    """An error that names where memory ran out, how much the step needs, and the command that finds a plan.

    Args:
        net: the network.
        images: the batch.
        span: the local modules that ran.
    """
    batch, device = len(images), images.device
    where = f"local module {span[0]}" if len(span) == 1 else f"local modules {span[0]} to {span[-1]}"
    names = [net.chain.names[layer] for module in span for layer in net.partition.layers(module)]
    layers = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    predicted = _predicted(net, images)
    used = ""
    if device.type == "cuda":
        used = f" Up to {format_bytes(torch.cuda.max_memory_allocated(device))} were in use."
    rule = "--rule RULE" if len(net.auxiliary) else "--rules auto"
    shape = "x".join(map(str, net.chain.image_shape))
    command = f"locallearn plan --model MODEL {rule} --image {shape} --classes {net.chain.classes} --batch {batch}"
    return OutOfMemoryError(
        f"memory ran out in {where} ({layers}) with {counted(batch, 'image')} at a time.{used}",
        advice(predicted, device, command),
        module=span[0],
        batch=batch,
        predicted=predicted,
    )


def advice(predicted: int | None, device: torch.device, command: str) -> str:
    """How much a step needs, and the command that finds settings that fit.

    Args:
        predicted: peak bytes of the step in total, or None where that is unknown.
        device: where memory ran out.
        command: plans for the step, without `--memory`.
    """
    needs = "" if predicted is None else f"The whole step needs {format_bytes(predicted)} by prediction. "
    available = _available(device) or (None if predicted is None else predicted // 2)
    return (
        f"{needs}To find settings that fit: {command} --memory {'BYTES' if available is None else size_text(available)}"
    )


def _predicted(net: LocalNet, images: Tensor) -> int | None:
    try:
        return peak_memory(net, len(images), autocast=mixed_now(images.device)).total
    except Exception:  # the user needs the first error, not this one
        return None


def _available(device: torch.device) -> int | None:
    """Bytes that are available to a step: all but a tenth, which allocators need."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * 0.9)
    if device.type == "cpu" and {"SC_AVPHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ())):
        return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.9)
    return None
