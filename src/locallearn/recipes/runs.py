"""The training runs of a reproduction: those that are there are used again, others are trained."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from locallearn._torch.device import device_of
from locallearn._utils.atomic_files import file_name, read_json, write_json
from locallearn._utils.errors import LocalLearnError, NonFiniteLossError
from locallearn._utils.optional_imports import optional
from locallearn.data import ImageSet, Split
from locallearn.recipes.budgets import VALIDATION_IMAGES
from locallearn.training import (
    RunFolder,
    TrainSettings,
    Watcher,
    as_yaml,
    build,
    digest_of,
    evaluate,
    load_checkpoint,
    load_images,
    load_weights,
    rule_text,
    train,
    trained_weights,
)
from locallearn.training.settings_text import with_new_defaults

NO_RESULT = (
    "data_dir",
    "workers",
    "checkpoint_every",
    "loggers",
    "threads",
    "device",
    "eval_heads",
    "parallel_timeout",
)
"""Settings that do not change which result a run has, but for rounding."""

Watching = Callable[[str, TrainSettings], AbstractContextManager[Watcher]]
"""Shows a run of some name and settings."""


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
        watching: shows a run that is trained.
        say: prints a sentence for a person.
    """

    def __init__(
        self, out: Path, others: Sequence[Path], *, watching: Watching, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.out, self.watching, self.say = out, watching, say
        self._saved = {folder: folder.read_settings() for folder in _folders_in([out, *others])}
        self._seconds: list[float] = []

    def run(self, settings: TrainSettings) -> Finished | None:
        """The run of these settings, trained if it is not there.

        None if its loss became infinite; a sentence says so.

        Raises:
            InUseError: another process trains it now.
        """
        folder, name = self._folder_of(settings), f"{rule_text(settings.rule)}, seed {settings.seed}"
        if folder.result.exists():
            return _finished(settings, folder)
        resume = folder.settings.exists()
        if resume:  # with its own settings, of which some may differ that change no result
            own = {one: value for one, value in folder.read_settings("train").items() if one in NO_RESULT}
            settings = replace(settings, **own | {"data_dir": Path(own.get("data_dir", settings.data_dir))})
        begun = time.monotonic()
        try:
            with self.watching(name, settings) as watcher:
                train(settings, folder.path, resume="last" if resume else None, watcher=watcher, say=self.say)
        except NonFiniteLossError as error:
            self.say(f"{name}, learning rate {settings.optimizer.lr:g}: {error}")
            return None
        self._seconds.append(time.monotonic() - begun)
        return _finished(settings, folder)

    @property
    def mean_seconds(self) -> float | None:
        """Mean time of the runs that were trained, or None."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    def validated(self, run: Finished) -> float:
        """Accuracy of a run's last epoch on the validation images, which is stored under `out`."""
        file = self.out / "validation.json"
        known = read_json(file) if file.exists() else {}
        key = digest_of(run.folder / "last.pt")
        if key not in known:
            known[key] = validation_accuracy(run)
            write_json(file, known)
        return known[key]

    def _folder_of(self, settings: TrainSettings) -> RunFolder:
        """The folder that holds this run, or a new one."""
        asked = _values(settings)
        for folder, saved in self._saved.items():
            if _without(with_new_defaults(saved, settings), NO_RESULT) == asked:
                return folder
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        name = file_name(f"{settings.data}-{settings.model}-{rule_text(settings.rule)}".lower())[:60]
        return RunFolder(self.out / f"{name}-{digest}-seed{settings.seed}")


def validation_accuracy(run: Finished) -> float:
    """Accuracy of a run's last epoch on the last images of the training split."""
    settings = run.settings
    images = load_images(settings.data, settings.data_dir)
    assert isinstance(images, ImageSet)
    count = VALIDATION_IMAGES[settings.data]
    held_out = Split(images=images.train.images[-count:], labels=images.train.labels[-count:])
    images = replace(images, test=held_out)
    device, file = device_of(settings.device), run.folder / "last.pt"
    net = build(settings, images).to(device)
    load_weights(net, trained_weights(load_checkpoint(file)), file=file, name=settings.model)
    return evaluate(net, images.testing(settings.feed(device)), autocast=settings.autocast).accuracy


def _finished(settings: TrainSettings, folder: RunFolder) -> Finished:
    result = read_json(folder.result)
    if not isinstance(result, dict) or not result.keys() >= {"test_accuracy", "best_accuracy"}:
        raise LocalLearnError(f"{folder.result} is damaged: give {folder.path} to locallearn train --resume.")
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
    return _without(optional("yaml").safe_load(as_yaml(settings)), NO_RESULT)


def _without(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
