"""Tiny runs on digits, trained once in a process, with results of analyses beside them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import locallearn as ll
from locallearn._utils.atomic_files import read_yaml
from locallearn._utils.hashed_json import write_hashed_json
from locallearn.report import Group, Run, group_runs, read_run
from locallearn.training import SGD, TrainSettings, as_yaml, train

LAYERS = ["0", "4", "8"]
RULES = {"bp": ll.BP(), "dgl": ll.DGL(hidden=1), "dgl-1": ll.DGL(hidden=1), "hilo": ll.HiLo(ll.DGL(hidden=1))}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
"""A PNG of one pixel."""


def settings(rule: ll.Rule, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "model": "small_runs.little",
        "data": "digits",
        "rule": rule,
        "epochs": 2,
        "batch": 64,
        "train_images": 192,
        "optimizer": SGD(lr=0.05),
        "threads": 1,
    }
    return TrainSettings(**(values | changes))


SETTINGS = {name: settings(rule, seed=int(name == "dgl-1")) for name, rule in RULES.items()}


@cache
def made() -> Path:
    """A folder with the runs of `RULES`; do not write there."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name, asked in SETTINGS.items():
        train(asked, root / name)
        for checkpoint in (root / name).glob("*.pt"):
            checkpoint.unlink()  # the report needs none
    add_analyses(root / "dgl", against=root / "bp")
    return root


def add_analyses(run: Path, *, against: Path) -> None:
    folder = run / "analysis"
    folder.mkdir(exist_ok=True)
    probes = {"layers": LAYERS, "accuracy": [0.5, 0.75, 0.875], "heads": {"0": 0.25}}
    write_hashed_json(folder / "probes.json", probes)
    matrix = [[1.0, 0.5, 0.25], [0.5, 0.75, 0.5], [0.25, 0.5, 0.625]]
    others = {"layers": LAYERS, "against_layers": LAYERS, "per_layer": [1.0, 0.75, 0.625], "matrix": matrix}
    write_hashed_json(folder / f"cka-vs-{against.name}.json", {"against": str(against), **others})
    (folder / "tsne-8.png").write_bytes(PIXEL)


def copies(folder: Path, *names: str) -> list[Path]:
    """Copies of some runs, which a test may change; their steps are not counted yet."""
    paths = [Path(shutil.copytree(made() / name, folder / name)) for name in names or RULES]
    for path in paths:
        (path / "analysis" / "step.json").unlink(missing_ok=True)
    return paths


def read(*paths: Path, **changes: Any) -> list[Run]:
    """Run folders, with the settings of the run that their names begin with."""
    found = []
    for path in paths:
        name = max((name for name in SETTINGS if path.name.startswith(name)), key=len)
        found.append(read_run(path, settings(RULES[name], seed=SETTINGS[name].seed, **changes)))
    return found


@cache
def runs() -> tuple[Run, ...]:
    return tuple(read(*(made() / name for name in RULES)))


@cache
def groups() -> tuple[Group, ...]:
    """bp, dgl with two seeds, and hilo(dgl)."""
    return tuple(group_runs(runs()))


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Change the JSON in a file, or each line of JSON."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("".join(json.dumps(edit(json.loads(line))) + "\n" for line in lines))


def twenty(folder: Path) -> list[Path]:
    """Twenty runs of different settings: copies of one, with other names, learning rates and metrics."""
    source, paths = made() / "dgl", []
    for number in range(20):
        path = Path(shutil.copytree(source, folder / f"dgl-copy-{number}"))
        values = read_yaml(path / "settings.yaml")
        values["batch"] = 64 + number
        asked = settings(RULES["dgl"], batch=64 + number)
        (path / "settings.yaml").write_text(as_yaml(asked))
        change(path / "metrics.jsonl", lambda row, n=number: row | {"test_accuracy": 0.5 + n / 50 + row["epoch"] / 100})
        paths.append(path)
    return paths
