"""Auxiliary networks are tried out on fake tensors before training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from locallearn._chain.chain import COPIED_LAYER
from locallearn._chain.layout import carrying_shape
from locallearn._chain.structure import Remembered
from locallearn._objectives.auxiliary import Auxiliary, is_head, loss_is_of_outputs, part_without_outputs
from locallearn._objectives.objective import Objective, Site
from locallearn._objectives.sites import Sites
from locallearn._torch import private_api
from locallearn._torch.private_api import FakeTensorMode
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.quantities import counted


def copy_written_features(objectives: Sequence[Objective], sites: Sites) -> list[Objective]:
    """The objectives, with a copy of the features for each auxiliary network that writes on them.

    Networks of equal structure are run once, those of libraries' parts once in a process. The classifier's objectives
    stay as they are.

    Raises:
        LocalLearnError: a network cannot take the features of its site, or does not give one logit for each class.
    """
    writes: dict[Hashable, bool] = {}
    checked: list[Objective] = []
    with private_api.fake_mode() as mode, torch.no_grad():
        for objective in objectives:
            if objective.last == len(sites.partition) - 1:
                checked.append(objective)
                continue
            site = sites.site(objective.first, objective.last)
            like = sites.reference(site.layer)
            run = partial(_writes, objective.auxiliary, mode, site, like)
            more = site.chain.shapes[site.layer], site.is_vector, like.dtype, site.image_shape, site.classes
            written = _WRITES.find(objective.auxiliary, like.device, *more, compute=run, meanwhile=writes)
            checked.append(replace(objective, copy_features=written))
    return checked


_WRITES: Remembered[bool] = Remembered()
"""Whether an auxiliary network changes its features."""


def _writes(auxiliary: Auxiliary, mode: FakeTensorMode, site: Site, like: Tensor) -> bool:
    """Whether an auxiliary network changes its features in place: a fake copy is run.

    Args:
        auxiliary: the network.
        mode: the active mode.
        site: its site.
        like: a tensor of the device and type of the network.
    """
    network = private_api.fake_copy(auxiliary, mode).train()
    name = f"the auxiliary network after layer {site.chain.names[site.layer]!r}"
    places = site.chain.shapes[site.layer]
    shape = places[:1] if site.is_vector else places
    taken = carrying_shape(places, network.prefix) if network.prefix else shape
    for_logits, for_loss, images = (like.new_empty((2, *size)) for size in (taken, taken, site.image_shape))
    running = _running_copies(network, _copied_layers(auxiliary))
    try:
        logits = network.logits(for_logits)
        has_outputs = not is_head(network) and part_without_outputs(network) is None
        outputs = network.outputs(for_loss, images) if has_outputs else ()
    except LocalLearnError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if private_api.needs_values(error):
            return True  # for all that is known here
        size = "x".join(map(str, shape))
        sentence = f"{name} cannot take features of shape {size}"
        if running:
            raise LocalLearnError(
                f"{sentence}, because its copy of layer {running[-1]!r} takes other sizes only ({reason_of(error)}):"
                " use a rule that copies no layers, such as DGL, Pooling, PredSim or InfoPro, or end modules elsewhere"
                " by modules=[...]."
            ) from error
        raise LocalLearnError(f"{sentence}: {reason_of(error)}.") from error
    if logits is not None and logits.shape != (2, site.classes):
        raise LocalLearnError(
            f"{name} gives {counted(logits.shape[1:].numel(), 'logit')} for {counted(site.classes, 'class')}."
        )
    if not is_head(network):
        labels = torch.zeros(2, device=like.device, dtype=torch.long)
        try:
            if loss_is_of_outputs(network):
                network.loss_of(outputs, images, labels)
            else:
                network(for_loss, images, labels)
        except LocalLearnError:
            raise
        except Exception:  # the loss may be for other labels than class indices
            pass
    return private_api.version_of(for_logits) > 0 or private_api.version_of(for_loss) > 0


def _copied_layers(network: nn.Module) -> dict[str, str]:
    """Names of parts to the layers that they are copies of; a copied `fx.GraphModule` lacks the attribute."""
    marks = ((name, vars(part).get(COPIED_LAYER)) for name, part in network.named_modules())
    return {name: layer for name, layer in marks if layer is not None}


def _running_copies(network: nn.Module, copied_layers: Mapping[str, str]) -> list[str]:
    """The layers whose copies in a network are running at any moment, the inner one last."""
    running: list[str] = []
    for name, layer in copied_layers.items():
        part = network.get_submodule(name)
        part.register_forward_pre_hook(lambda *_, layer=layer: running.append(layer))
        part.register_forward_hook(lambda *_: running.pop() and None)
    return running
