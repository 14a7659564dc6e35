"""Weights of an earlier training as the start of a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from locallearn._utils.atomic_files import machine_memory, read_json, regular_file
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional
from locallearn.training.files.checkpoint import FILES, backbone_weights, load_checkpoint
from locallearn.training.files.data_card import DataCard
from locallearn.training.files.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Weights of a backbone.

    Attributes:
        file: where they come from.
        weights: by the names of the backbone's parameters and buffers.
        classes: names of the classes that the classifier tells apart; None where the file says none.
    """

    file: Path
    weights: Mapping[str, Tensor]
    classes: tuple[str, ...] | None = None

    @staticmethod
    def read(path: Path) -> WarmStart:
        """Read the weights.

        Args:
            path: a run folder, whose `last.pt` is read; a checkpoint in it; or a file of safetensors, whose classes
                are known where it lies in an export folder.

        Raises:
            LocalLearnError: there is no such file, or it is damaged.
        """
        if path.suffix == ".safetensors":
            config = path.with_name("config.json")
            values = read_json(config) if config.exists() else None
            names = values.get("label_names") if isinstance(values, dict) else None
            classes = tuple(names) if isinstance(names, list) else None
            return WarmStart(file=path, weights=_read_safetensors(path), classes=classes)
        file = path if path.suffix == ".pt" else path / FILES["last"]
        folder = RunFolder(file.parent)
        if not file.exists() and not folder.settings.exists():
            raise LocalLearnError(
                f"init_from={path}: give a run folder, a checkpoint in it (.pt), or a file of safetensors"
                " (.safetensors)."
            )
        weights = backbone_weights(load_checkpoint(file))
        classes = DataCard.read(folder.data).classes if folder.data.exists() else None
        return WarmStart(file=file, weights=weights, classes=classes)

    def load(self, model: nn.Module, classes: Sequence[str], say: Callable[[str], None] = lambda _: None) -> set[str]:
        """Load the weights. Where the classes are others, or in another order, the classifier starts anew.

        Args:
            model: the backbone, just initialised.
            classes: names of those that it is to tell apart.
            say: prints a sentence for a person.

        Returns:
            Names of parameters and buffers that start anew.

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
        others = bool(shapes) or (self.classes is not None and self.classes != tuple(classes))
        anew = {name for name in own if others and name.rpartition(".")[0] == classifier}
        model.load_state_dict({name: own[name] if name in anew else self.weights[name] for name in own})
        but = f", but for the classifier {classifier}, which starts anew: the classes are others" if anew else ""
        say(f"the backbone starts from the weights of {self.file}{but}.")
        return anew


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        content = regular_file(path, most=machine_memory()).read_bytes()
    except LocalLearnError as error:
        why = error if path.exists() else "there is no such file"
        raise LocalLearnError(f"init_from={path}: {why}; give a run folder or a file of safetensors.") from error
    return parse_safetensors(content, path)


def parse_safetensors(content: bytes, file: Path) -> dict[str, Tensor]:
    """The tensors in a file of safetensors.

    Args:
        content: of the file.
        file: where it comes from, for the error.

    Raises:
        LocalLearnError: it is no such file, or the package safetensors is missing.
    """
    try:
        return optional("safetensors.torch", extra="export").load(content)
    except LocalLearnError:
        raise
    except Exception as error:  # of safetensors' own type
        raise LocalLearnError(f"{file} cannot be read: {reason_of(error)}.") from error
