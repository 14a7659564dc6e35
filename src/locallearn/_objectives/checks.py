"""Which part of a network cannot train on a single image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from locallearn._chain.layout import Shape
from locallearn._objectives.objective import Objective
from locallearn._torch import private_api


def first_part_that_needs_several(
    modules: Sequence[nn.Module], objectives: Sequence[Objective], image_shape: Shape
) -> str | None:
    """Name of the first local module or auxiliary network that cannot train on one image; run on fake tensors."""
    with private_api.fake_mode() as mode, torch.no_grad():
        parts = nn.ModuleList([*modules, *(objective.auxiliary for objective in objectives)])
        copies = private_api.fake_copy(parts, mode).train()
        reference = next(copies.parameters())
        images = torch.empty((1, *image_shape), device=reference.device, dtype=reference.dtype)
        labels = torch.zeros(1, dtype=torch.long, device=reference.device)
        features = images
        for index, module in enumerate(copies[: len(modules)]):
            if _needs_several(module, features):
                return f"local module {index}"
            features = module(features)
            for objective, auxiliary in zip(objectives, copies[len(modules) :], strict=True):
                if objective.last == index and _needs_several(
                    auxiliary, objective.seen(features).clone(), images, labels
                ):
                    return f"the auxiliary network of local module {index}"
    return None


def _needs_several(part: Callable[..., Tensor], *inputs: Tensor) -> bool:
    try:
        part(*inputs)
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    except Exception:  # a loss for other labels, for instance; it comes after all normalisation
        return False
    return False
