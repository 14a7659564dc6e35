"""The training runs of a reproduction: those that are there are used again, others are trained."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock

from locallearn._torch.device import device_of
from locallearn._utils.atomic_files import file_name, read_json, write_json
from locallearn._utils.errors import LocalLearnError, NonFiniteLossError
from locallearn._utils.optional_imports import optional
from locallearn.data import ImageSet
from locallearn.recipes.training_budget import validation_split
from locallearn.recipes.workers import Alone
from locallearn.training import (
    NO_RESULT,
    RunFolder,
    TrainSettings,
    as_yaml,
    build,
    digest_of,
    evaluate,
    load_checkpoint,
    load_images,
    load_weights,
    rule_text,
    trained_weights,
)
from locallearn.training.settings.text import with_new_defaults

_OF_ROUNDING = ("device", "threads")
_OF_MACHINE = (*NO_RESULT, *_OF_ROUNDING)
"""Settings that do not change which result a run has, but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run.

    Attributes:
        settings: of the run.
        folder: its folder.
        result: its `result.json`.
        environment: its `environment.json`.
    """

    settings: TrainSettings
    folder: Path
    result: dict[str, Any]
    environment: dict[str, Any]


class Runs:
    """Run folders under a folder, and in others to be used again.

    Args:
        out: where new runs go.
        others: folders whose runs, or which themselves, are used again.
        workers: train what is missing.
    """

    def __init__(self, out: Path, others: Sequence[Path], *, workers: Alone) -> None:
        RunFolder(out).refuse_run()
        self.out, self.workers = out, workers
        self._saved = {folder: folder.read_settings() for folder in _folders_in([out, *others])}
        self._seconds: list[float] = []
        self._busy: defaultdict[str, Lock] = defaultdict(Lock)

    def run(self, settings: TrainSettings) -> Finished | None:
        """The run of these settings, trained if it is not there.

        None if its loss became infinite; a sentence says so.

        Raises:
            InUseError: another process trains it now.
        """
        folder, name = self._folder_of(settings), f"{rule_text(settings.rule)}, seed {settings.seed}"
        with self._busy[str(folder.path)]:  # two rows may need it at once
            if folder.result.exists():
                return _finished(settings, folder)
            try:
                seconds = self._trained(name, settings, folder)
            except NonFiniteLossError as error:
                self.workers.say(f"{name}, learning rate {settings.optimizer.lr:g}: {error}")
                return None
            self._seconds.append(seconds)
            return _finished(settings, folder)

    def _trained(self, name: str, settings: TrainSettings, folder: RunFolder) -> float:
        """Train the run of a folder, or go on with it; the seconds that it took."""
        if not folder.settings.exists():
            try:
                return self.workers.train(name, settings, folder.path, None)
            except NonFiniteLossError:
                raise
            except LocalLearnError:
                if not folder.settings.exists():
                    raise  # else another process began it meanwhile, or what failed here fails again
        own = folder.with_own(settings, _OF_ROUNDING)
        if own != settings:
            kept = " and ".join(f"{setting}={getattr(own, setting)}" for setting in _OF_ROUNDING)
            self.workers.say(f"{name}: goes on in {folder.path} with {kept}, as it began")
        return self.workers.train(name, own, folder.path, "last")

    @property
    def mean_seconds(self) -> float | None:
        """Mean time of the runs that were trained, as if one stood after the other, or None."""
        seconds, side_by_side = self._seconds, self.workers.count
        return sum(seconds) / len(seconds) / side_by_side if seconds else None

    def validated(self, run: Finished) -> float:
        """Accuracy of a run's last epoch on the validation images, which is stored under `out`."""
        file, key = self.out / "validation.json", digest_of(run.folder / "last.pt")
        with self._busy[key]:
            known = read_json(file) if file.exists() else {}
            if key in known:
                return known[key]
            accuracy = self.workers.call(validation_accuracy, run)
        with FileLock(file.with_suffix(".lock")):  # another row, or another command, may have written meanwhile
            write_json(file, (read_json(file) if file.exists() else {}) | {key: accuracy})
        return accuracy

    def _folder_of(self, settings: TrainSettings) -> RunFolder:
        """The folder that holds this run, or a new one."""
        asked = _values(settings)
        for folder, saved in self._saved.items():
            if _without(with_new_defaults(saved, settings), _OF_MACHINE) == asked and not folder.changed_settings:
                return folder
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        name = file_name(f"{settings.data}-{settings.model}-{rule_text(settings.rule)}".lower())[:60]
        folder = RunFolder(self.out / f"{name}-{digest}-seed{settings.seed}")
        if folder.settings.exists():  # meanwhile by another process, or another run by --resume
            folder.refuse_reuse(settings, differing=_OF_MACHINE)
        return folder


def validation_accuracy(run: Finished) -> float:
    """Accuracy of a run's last epoch on the last images of the training split."""
    settings = run.settings
    images = load_images(settings.data, settings.data_dir)
    assert isinstance(images, ImageSet)
    images = replace(images, test=validation_split(settings.data, images))
    device, file = device_of(settings.device), run.folder / "last.pt"
    net = build(settings, images).to(device)
    load_weights(net, trained_weights(load_checkpoint(file)), file=file, name=settings.model)
    batches = images.testing(settings.testing_feed(settings.feed(device)))
    return evaluate(net, batches, autocast=settings.autocast).accuracy


def _finished(settings: TrainSettings, folder: RunFolder) -> Finished:
    result = folder.read_result("test_accuracy", "best_accuracy")
    return Finished(settings=settings, folder=folder.path, result=result, environment=read_json(folder.environment))


def _folders_in(places: Iterable[Path]) -> list[RunFolder]:
    """The run folders among some folders and in them."""
    candidates = [
        folder for place in places for folder in (place, *(sorted(place.iterdir()) if place.is_dir() else ()))
    ]
    found = {folder.resolve(): RunFolder(folder) for folder in candidates if (folder / "settings.yaml").exists()}
    return list(found.values())


def _values(settings: TrainSettings) -> dict[str, Any]:
    """Settings that change the result, as a file of settings has them."""
    return _without(optional("yaml").safe_load(as_yaml(settings)), _OF_MACHINE)


def _without(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
