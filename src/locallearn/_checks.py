"""What is refused before a step begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from locallearn import _fake
from locallearn._errors import LocalLearnError

if TYPE_CHECKING:
    from locallearn._local_net import LocalNet


def refuse_labels(labels: Tensor, classes: int) -> None:
    """Refuse class indices outside 0 ... classes - 1."""
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise LocalLearnError(
            f"labels run from {lowest} to {highest}, but the network has {classes} classes (0 to {classes - 1}):"
            " give the network more outputs, or mend the labels."
        )


def first_part_that_needs_several(net: LocalNet) -> str | None:
    """Name of the first local module or auxiliary network that cannot train on one image, found without computing."""
    with _fake.fake_mode() as mode, torch.no_grad():
        net = _fake.fake_copy(net, mode).train()
        reference = next(net.parameters())
        images = torch.empty((1, *net.chain.image_shape), device=reference.device, dtype=reference.dtype)
        labels = torch.zeros(1, dtype=torch.long, device=reference.device)
        features, name = images, ""
        try:
            for index, module in enumerate(net.local_modules):
                name = f"local module {index}"
                features = module(features)
                for head in net.heads_of(index):
                    name = f"the auxiliary network of local module {index}"
                    head(features, images, labels)
        except ValueError:  # PyTorch's "expected more than 1 value per channel when training"
            return name
    return None
