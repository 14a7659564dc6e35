"""Weights of an earlier training as the start of a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from locallearn._utils.atomic_files import machine_memory, regular_file
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional
from locallearn.training.files.checkpoint import FILES, load_checkpoint, trained_weights


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Weights of a backbone.

    Attributes:
        file: where they come from.
        weights: by the names of the backbone's parameters and buffers.
    """

    file: Path
    weights: Mapping[str, Tensor]

    @staticmethod
    def read(path: Path) -> WarmStart:
        """Read the weights.

        Args:
            path: a run folder, whose `last.pt` is read; a checkpoint in it; or a file of safetensors.

        Raises:
            LocalLearnError: there is no such file, or it is damaged.
        """
        if path.suffix == ".safetensors":
            return WarmStart(file=path, weights=_safetensors(path))
        file = path if path.suffix == ".pt" else path / FILES["last"]
        net = trained_weights(load_checkpoint(file))
        weights = {name.removeprefix("model."): part for name, part in net.items() if name.startswith("model.")}
        return WarmStart(file=file, weights=weights)

    def load(self, model: nn.Module, say: Callable[[str], None] = lambda _: None) -> None:
        """Load the weights. Where the classifier has another number of classes, it starts anew.

        Args:
            model: the backbone, just initialised.
            say: prints a sentence for a person.

        Raises:
            LocalLearnError: names, or shapes outside of the classifier, differ.
        """
        own = model.state_dict()
        if different := sorted(own.keys() ^ self.weights.keys()):
            where = "lacks" if different[0] in own else "has"
            raise LocalLearnError(
                f"{self.file} {where} {different[0]!r}, unlike the backbone: choose the --model that it was"
                " trained for."
            )
        shapes = {name for name, value in own.items() if value.shape != self.weights[name].shape}
        classifier = list(dict(model.named_parameters()))[-1].rpartition(".")[0]  # the last one with parameters
        if other := sorted(name for name in shapes if name.rpartition(".")[0] != classifier):
            raise LocalLearnError(
                f"{self.file} has {other[0]!r} in another shape than the backbone: choose the --model that it was"
                " trained for."
            )
        anew = {name for name in own if shapes and name.rpartition(".")[0] == classifier}
        model.load_state_dict({name: own[name] if name in anew else self.weights[name] for name in own})
        but = f", but for the classifier {classifier}, which starts anew: the classes differ in number" if anew else ""
        say(f"the backbone starts from the weights of {self.file}{but}.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        content = regular_file(path, most=machine_memory()).read_bytes()
    except LocalLearnError as error:
        raise LocalLearnError(f"{error}: give --init-from a run folder or a file of safetensors.") from error
    try:
        return optional("safetensors.torch", extra="export").load(content)
    except LocalLearnError:
        raise
    except Exception as error:  # of safetensors' own type
        raise LocalLearnError(f"{path} cannot be read: {reason_of(error)}.") from error
