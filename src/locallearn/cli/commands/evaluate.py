"""`locallearn evaluate`: trained networks on their own test images or on those of another data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from locallearn.cli.console import say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.settings import read_settings
from locallearn.training import RunFolder, TrainSettings, Transfer, evaluate_run

HELP = """Test trained networks on their own test images, or on those of another data set.

examples:
  locallearn evaluate runs/ONE
  locallearn evaluate runs/BP runs/DGL --data stl10   # trained on cifar10: MLAAN's generalisation study (Table VI)
  locallearn evaluate runs/ONE --checkpoint best --json

Images of another data set are resized to the size that the network was trained on, with antialiasing, and normalised as
its training images were. Classes are the same if they have the same name; car is another name of automobile. Images of
other classes are left out, and answers that are none of the data set's classes count as wrong; both are told.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn evaluate RUN [RUN ...] [options]")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--data", type=str | None, help="a data set, as for train; by default the run's own")
    parser.add_argument("--data_dir", type=Path | None, help="folder of the data set; by default the run's own")
    parser.add_argument("--checkpoint", type=Literal["last", "best"], default="last", help="which checkpoint")
    parser.add_argument("--device", type=str | None, help="cpu, cuda, ...; by default the run's own")
    parser.add_argument(
        "--bad_images",
        type=Literal["refuse", "skip"] | None,
        help="at image files that cannot be read: stop, or leave them out; by default as the run",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def run(config: Any) -> None:
    """Test each run, and print the table."""
    results: dict[str, Transfer] = {}
    rules: dict[str, str] = {}
    for path in config.runs:
        settings = read_settings(TrainSettings, RunFolder(path))
        rules[str(path)] = f"{settings.rule}, {settings.model}, {settings.data}"
        results[str(path)] = evaluate_run(
            path,
            settings,
            data=config.data,
            data_dir=config.data_dir,
            checkpoint=config.checkpoint,
            device=config.device,
            bad_images=config.bad_images,
        )
    if config.json:
        show_json({path: dataclasses.asdict(result) for path, result in results.items()})
        return
    whole = not any(result.never_right for result in results.values())
    rows = [
        (path, rules[path], f"{found.images:,}", f"{found.accuracy:.2%}", *(() if whole else (_among(found),)))
        for path, found in results.items()
    ]
    columns = ("run", "trained", "test images", "accuracy", *(() if whole else ("among shared classes",)))
    show(f"tested on {config.data or 'the own test images'}", columns, rows, texts=2)
    for path, found in results.items():
        _explain(path, found)


def _among(found: Transfer) -> str:
    return f"{found.shared_accuracy:.2%}"


def _explain(path: str, found: Transfer) -> None:
    if found.left_out or found.never_right:
        names = ", ".join(a if a == b else f"{a} = {b}" for a, b in found.classes.items())
        say(f"{path}: {len(found.classes)} classes are shared by name: {names}.")
    for name, images in found.left_out.items():
        say(f"  {name}: the network does not know it; its {images:,} images are left out.")
    for name, times in found.never_right.items():
        say(f"  {name}: no class of the test images; the network answers it {times:,} times, which counts as wrong.")
    if found.skipped:
        say(f"  {len(found.skipped)} image files cannot be read and are left out: {', '.join(found.skipped[:3])}.")
