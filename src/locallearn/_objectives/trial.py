"""Auxiliary networks are tried out on fake tensors before training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from locallearn._objectives.auxiliary import Auxiliary, Head, part_without_outputs
from locallearn._objectives.objective import Site
from locallearn._objectives.structure import structure
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError, reason_of


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An auxiliary network at its site.

    Attributes:
        auxiliary: the network.
        site: where it sits.
        like: a tensor of the features' type and device.
    """

    auxiliary: Auxiliary
    site: Site
    like: Tensor

    @property
    def features_shape(self) -> tuple[int, ...]:
        """Of one image: (channels,) or (channels, height, width)."""
        return self.site.shape[:1] if self.site.is_vector else self.site.shape

    def key(self) -> Hashable:
        """Trials with equal keys have the same result."""
        surroundings = self.features_shape, self.site.image_shape, self.site.classes, self.like.device, self.like.dtype
        return surroundings, structure(self.auxiliary)


def features_written(trials: Sequence[Trial]) -> list[bool]:
    """Whether each auxiliary network changes its features in place. Networks of equal structure are run once.

    Raises:
        LocalLearnError: a network cannot take the features of its site, or does not give one logit for each class.
    """
    results: dict[Hashable, bool] = {}
    with private_api.fake_mode() as mode, torch.no_grad():
        keys = [trial.key() for trial in trials]
        for key, trial in zip(keys, trials, strict=True):
            if key not in results:
                results[key] = _writes(trial, private_api.fake_copy(trial.auxiliary, mode).train())
    return [results[key] for key in keys]


def _writes(trial: Trial, network: Auxiliary) -> bool:
    site = trial.site
    name = f"the auxiliary network after layer {site.chain.names[site.layer]!r}"
    like = {"device": trial.like.device, "dtype": trial.like.dtype}
    for_logits, for_loss = (torch.empty((2, *trial.features_shape), **like) for _ in range(2))
    images = torch.empty((2, *site.image_shape), **like)
    is_head = type(network) is Head  # its outputs are its logits, and its loss sees these alone
    try:
        logits = network.logits(for_logits)
        if not is_head and part_without_outputs(network) is None:
            network.outputs(for_loss, images)
    except LocalLearnError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = "x".join(map(str, trial.features_shape))
        raise LocalLearnError(f"{name} cannot take features of shape {shape}: {reason_of(error)}.") from error
    if logits is not None and logits.shape != (2, site.classes):
        raise LocalLearnError(f"{name} gives {logits.shape[1:].numel()} logits for {site.classes} classes.")
    if not is_head:
        labels = torch.zeros(2, device=trial.like.device, dtype=torch.long)
        try:
            network(for_loss, images, labels)
        except LocalLearnError:
            raise
        except Exception:  # the loss may be for other labels than class indices
            pass
    return private_api.version_of(for_logits) > 0 or private_api.version_of(for_loss) > 0
