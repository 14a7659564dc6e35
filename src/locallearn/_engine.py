"""The engine: runs one training step of a list of objectives, with no more graphs alive than one objective needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from locallearn._errors import LocalLearnError, NonFiniteLossError
from locallearn._objectives import Objective


class LocalModule(nn.Module):
    """Neighbouring layers of the backbone, run in order. It holds the backbone's own modules.

    Args:
        layers: the layers.
        begins_in_place: whether the first of them writes on its input, so that it must be given a copy.
    """

    def __init__(self, layers: Sequence[nn.Module], *, begins_in_place: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.begins_in_place = begins_in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.begins_in_place:
            x = x.clone()
        for layer in self.layers:
            x = layer(x)
        return x


def run_step(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    *,
    scale: float | Tensor = 1.0,
    final: bool = True,
    on_complete: Callable[[int], None] | None = None,
) -> Tensor:
    """Run every module forward once and every objective backward; objectives follow each other without overlap.

    An objective's backward runs as soon as its loss is known, and frees its graph before the next module starts. Then
    its auxiliary network moves what moves once a step, before any module after it is stepped.

    Returns:
        Losses, detached and unweighted, of shape (objectives,).
    """
    losses = []
    features = images
    last_use = {id(objective.auxiliary): index for index, objective in enumerate(objectives)}
    for index, objective in enumerate(objectives):
        span = range(objective.first, objective.last + 1)
        for module in span:
            features = modules[module](features)
        loss = objective.loss(features, images, labels)
        if loss.dim():
            raise LocalLearnError(
                f"the loss of objective {index} has shape {tuple(loss.shape)}: it must be one number, as by"
                " reduction='mean'."
            )
        features = features.detach()
        losses.append(loss.detach())
        # Operators must run in the precision that the forward pass chose for them, optimizers in that of the weights.
        with torch.autocast(images.device.type, enabled=False):
            if loss.requires_grad:
                (loss * (objective.weight * scale)).backward()
            del loss
            if final and last_use[id(objective.auxiliary)] == index:
                objective.auxiliary.after_backward()
            if on_complete is not None:
                for module in span:
                    on_complete(module)
        torch.clear_autocast_cache()  # else the cast weights of all modules would stay alive
    return torch.stack(losses)


def refuse_non_finite(losses: Tensor, objectives: Sequence[Objective], *, step: int, completed: Sequence[int]) -> None:
    """Stop at a NaN or infinite loss; one look at the device for all losses of a step."""
    finite = torch.isfinite(losses)
    if finite.all():
        return
    index = int(finite.logical_not().nonzero()[0])
    module = objectives[index].last
    done = "nothing was stepped"
    if completed:
        done = (
            f"on_complete was called for modules {', '.join(map(str, completed))} before, which may be stepped already"
        )
    raise NonFiniteLossError(
        f"the loss of objective {index} (local module {module}) is {losses[index].item()} at step {step}; {done}."
        " Lower the learning rate, or look at this batch.",
        objective=index,
        module=module,
        step=step,
    )
