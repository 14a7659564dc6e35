"""The run folder: settings, versions, metrics and checkpoints of one training run."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

import locallearn
from locallearn._utils.atomic_files import read_json, read_yaml, regular_file, write_json, write_whole
from locallearn._utils.commit import commit_of_code
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional
from locallearn._utils.registry import trust_option
from locallearn.training.evaluation import best_epoch
from locallearn.training.files.checkpoint import FILES
from locallearn.training.files.lock import LOCK_FILES, exclusive
from locallearn.training.processes.launch import program
from locallearn.training.settings.text import as_yaml, difference_text, with_new_defaults
from locallearn.training.settings.train import NO_RESULT

Settings = TypeVar("Settings")

_LARGEST_METRICS = 2**28  # bytes
OF_PROCESSES = ("parallel", "synchronise_statistics", "replay_buffer", "parallel_timeout")
"""Settings of how processes share a run, with which it may go on otherwise."""

_SETTING_OF = {"train": "model", "detect": "coco"}
"""A setting that only the runs of a command have."""


class RunFolder:
    """The files of one run.

    ========================= =============================================================
    `settings.yaml`           all settings; `locallearn train --config settings.yaml` repeats a run that had them from
                              the start (`changed_settings`)
    `environment.json`        versions, commit, device, threads, and the command that repeats the run
    `data.json`               classes, shape, mean and std of the images: the network can be used without them
    `metrics.jsonl`           one line of JSON for each epoch
    `events.out.tfevents.*`   the same for TensorBoard, unless `loggers` leaves it out
    `last.pt`, `last.prev.pt` checkpoints: the latest, and the one before it
    `best.pt`                 the checkpoint of the best epoch by validation or test accuracy (of `train` only)
    `history.json`            settings that changed when training went on, where it went back to an earlier checkpoint,
                              and an early stop, with epoch and step
    `result.json`             the summary, once the run is finished
    `curves.png`              loss and accuracy as a picture
    `.lock`, `owner.json`     held by the process that trains here: its host and process number
    ========================= =============================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings, self.metrics = path / "settings.yaml", path / "metrics.jsonl"
        self.last, self.previous, self.best = (path / file for file in FILES.values())
        self.result, self.curves = path / "result.json", path / "curves.png"
        self.data, self.environment = path / "data.json", path / "environment.json"
        self.history = path / "history.json"

    @contextmanager
    def opened(
        self,
        settings: Any,
        *,
        resume: bool,
        device: str,
        command: Sequence[str] = ("train",),
        changing: Collection[str] = (),
    ) -> Iterator[None]:
        """The folder for one process alone: a new one, or that of a run to go on with.

        Args:
            settings: of the run.
            resume: whether the run is there already.
            device: name of the training device.
            command: words that, with the settings, repeat the run.
            changing: settings that may differ from those of the run that is there.

        Raises:
            LocalLearnError: it holds a run or other files, or none to go on with; or another process trains there. A
                new folder goes again where one is raised before the first checkpoint.
        """
        self.refuse_unfit(settings, resume=resume, changing=changing)
        with exclusive(self.path):
            if not resume:
                self._refuse_taken()  # another process may have been faster
                self._create(settings, device, command)
            try:
                yield
            except LocalLearnError:
                if not resume and self.never_saved():  # no step was made
                    shutil.rmtree(self.path, ignore_errors=True)
                raise

    def refuse_unfit(self, settings: Any, *, resume: bool, changing: Collection[str] = ()) -> None:
        """Refuse what `opened` refuses, before anything is made ready for it."""
        if resume:
            self.refuse_other_settings(settings, changing=changing)
        else:
            self._refuse_taken()

    def _refuse_taken(self) -> None:
        if os.path.exists(self.settings):  # unlike Path.exists, False for a name that is too long
            raise LocalLearnError(
                f"{self.path} holds a run already: go on with it by --resume {self.path}, or choose another folder"
                " by --out."
            )
        started = {*LOCK_FILES, self.environment.name, self.settings.name}  # of a process that ended while it began
        names = [file.name.removesuffix(".new") for file in self.path.iterdir()] if os.path.isdir(self.path) else []
        if not started.issuperset(names):
            raise LocalLearnError(f"{self.path.absolute()} holds other files: choose a new folder by --out.")

    def _create(self, settings: Any, device: str, command: Sequence[str]) -> None:
        words = [*command, "--config", str(self.settings), *trust_option()]
        environment = {
            "commit": commit_of_code(),
            "versions": {module.__name__: module.__version__ for module in (locallearn, torch, np)},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            "threads": torch.get_num_threads(),
            "repeat": shlex.join([*program(), *words, "--out", "ANOTHER_FOLDER"]),
        }
        write_json(self.environment, environment)
        write_whole(self.settings, as_yaml(settings).encode())

    def refuse_other_settings(self, settings: Any, *, changing: Collection[str] = ()) -> None:
        """Refuse to resume a run that has other settings than these, except those in `changing`, or is not there."""
        pairs = self.differences(settings)
        if others := [difference_text(name, *pair) for name, pair in pairs.items() if name not in changing]:
            raise LocalLearnError(
                f"{self.path} holds a run with other settings ({'; '.join(others)}): choose another folder by --out, or"
                " repeat its settings."
            )

    def refuse_reuse(self, settings: Any, *, differing: Collection[str] = NO_RESULT) -> None:
        """Refuse to take the run that is there for one that had these settings from the start.

        Args:
            settings: the ones asked for.
            differing: those in which the two may differ.
        """
        self.refuse_other_settings(settings, changing=differing)
        if changed := self.changed_settings:
            raise LocalLearnError(
                f"{self.path} holds a run whose {' and '.join(changed)} changed on the way, as {self.history.name}"
                " says: choose another folder by --out, or remove it."
            )

    def refuse_run(self) -> None:
        """Refuse a run in the folder itself, where it is to be one of run folders."""
        if self.settings.exists():
            raise LocalLearnError(f"{self.path} holds a run, not run folders: choose another folder by --out.")

    def with_own(self, settings: Settings, names: Collection[str]) -> Settings:
        """Settings with the values of some, each a number or a word, that the run has."""
        own = {name: value for name, value in self.read_settings().items() if name in names}
        return replace(settings, **own)  # pyright: ignore[reportArgumentType]

    @property
    def changed_settings(self) -> list[str]:
        """Settings that changed when training went on: no single command repeats a run that has some.

        Raises:
            LocalLearnError: the history is damaged.
        """
        return sorted({name for event in self.events() for name in event.get("changes", {})})

    def differences(self, settings: Any) -> dict[str, tuple[Any, Any]]:
        """Names of the settings that differ from those of the run that is there, with the values before and now.

        A run of an earlier version may lack settings that came later: it had their defaults.

        Raises:
            LocalLearnError: it is not there.
        """
        now = optional("yaml").safe_load(as_yaml(settings))
        before = with_new_defaults(self.read_settings(), settings)
        names = {**before, **now}.keys() - set(OF_PROCESSES)
        pairs = {name: (before.get(name), now.get(name)) for name in sorted(names)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}  # as values: 1 and 1.0 are one

    def change_settings(self, settings: Any, changes: Mapping[str, tuple[Any, Any]], *, epoch: int, step: int) -> None:
        """Go on with other settings: write them, and add to the history what changes, and where.

        The folder no longer claims that a command repeats the run, if anything changes.

        Args:
            settings: the new ones.
            changes: those on which the result depends, with their values before and now.
            epoch: the first one that has them, from 1.
            step: within this epoch, from 0, likewise.
        """
        if changes:
            told = {name: {"before": before, "now": now} for name, (before, now) in changes.items()}
            self.add_history({"epoch": epoch, "step": step, "changes": told})
            environment = read_json(self.environment) if self.environment.exists() else None
            if isinstance(environment, dict):
                repeat = f"no single command: {self.history.name} says which settings changed on the way"
                write_json(self.environment, {**environment, "repeat": repeat})
        write_whole(self.settings, as_yaml(settings).encode())

    def add_history(self, event: Mapping[str, Any]) -> None:
        """Add an event to `history.json`, unless it is the last one there."""
        history = self.events()
        if history[-1:] != [event]:
            write_json(self.history, [*history, event])

    def events(self) -> list[dict[str, Any]]:
        """What happened on the way: settings that changed, an early stop, a return to an earlier checkpoint.

        Raises:
            LocalLearnError: the history is damaged.
        """
        events = read_json(self.history) if self.history.exists() else []
        if not isinstance(events, list) or not all(
            isinstance(event, dict) and isinstance(event.get("changes", {}), dict) for event in events
        ):
            raise LocalLearnError(f"{self.history} is damaged: it must be a list of events. Put a copy of it back.")
        return events

    def read_settings(self, command: Literal["train", "detect"] | None = None) -> dict[str, Any]:
        """The settings as values.

        Args:
            command: the command that the run must come from; any by default.

        Raises:
            LocalLearnError: there is no run, another command made it, or its settings are damaged.
        """
        try:
            self.settings.stat()
        except OSError as error:
            raise LocalLearnError(f"{self.path} holds no run: {self._where_instead(error)}.") from error
        values = read_yaml(self.settings)
        if command is not None and (name := _SETTING_OF[command]) not in values:
            raise LocalLearnError(f"{self.path} holds no run of locallearn {command}: its settings name no {name}.")
        return values

    def _where_instead(self, error: OSError) -> str:
        """Why there is no run, and which folder was meant."""
        if isinstance(error, NotADirectoryError):
            inside = RunFolder(self.path.parent).settings.exists()
            return f"it is no folder{f'; give the run folder, {self.path.parent}' if inside else ''}"
        if not isinstance(error, FileNotFoundError):
            return error.strerror or "it cannot be read"
        inner = sorted(file.parent for file in self.path.glob(f"*/{self.settings.name}"))
        return f"it holds run folders; give one, as {inner[0]}" if inner else f"there is no {self.settings.name}"

    def read_result(self, *names: str) -> dict[str, Any]:
        """The summary of a finished run.

        Args:
            names: of numbers that it must have.

        Raises:
            LocalLearnError: it is damaged.
        """
        result = read_json(self.result)
        if missing := [name for name in names if not isinstance(result, dict) or name not in result]:
            raise LocalLearnError(
                f"{self.result} is damaged: it has no {missing[0]}. Give {self.path} to locallearn train --resume."
            )
        return result

    def never_saved(self) -> bool:
        """Whether the run was stopped before its first `last.pt`, which is written before the first step."""
        return not any(file.exists() for file in (self.metrics, self.last, self.previous, self.best))

    def rows_before(self, epoch: int, *names: str) -> list[dict[str, Any]]:
        """Metrics of all epochs before this one.

        Args:
            epoch: from 1.
            names: metrics that each row must have.

        Raises:
            LocalLearnError: the file is damaged, or lacks an epoch or a metric.
        """
        rows = self.rows()[: epoch - 1]
        if [row["epoch"] for row in rows] != list(range(1, epoch)):
            raise LocalLearnError(
                f"{self.metrics} lacks some of the {epoch - 1} epochs before the checkpoint: put a copy of it back."
            )
        if missing := [name for row in rows for name in names if name not in row]:
            raise LocalLearnError(f"{self.metrics} is damaged: a line has no {missing[0]}. Put a copy of it back.")
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """Metrics of all epochs so far; a last line that a kill left unfinished does not count.

        Raises:
            LocalLearnError: the file is damaged.
        """
        if not self.metrics.exists():
            return []
        try:
            lines = (
                regular_file(self.metrics, most=_LARGEST_METRICS).read_text(errors="replace").splitlines(keepends=True)
            )
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            _ = [int(row["epoch"]) for row in rows]
        except (LocalLearnError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise LocalLearnError(
                f"{self.metrics} is damaged: each line must be JSON with an epoch ({reason_of(error)}). Put a copy of"
                " it back."
            ) from error
        return rows

    def begin(self, epoch: int) -> None:
        """Take the metrics of this epoch and the later ones; what is there of these is dropped, `best.pt` too."""
        rows = self.rows()
        if rows and best_epoch(rows)["epoch"] >= epoch:
            self.best.unlink(missing_ok=True)
        self._rows = [row for row in rows if row["epoch"] < epoch]
        self._write_rows()

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's metrics, on which the checkpoint that is written next relies."""
        self._rows.append(dict(row))
        self._write_rows()

    def _write_rows(self) -> None:
        write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in self._rows).encode())
