"""`locallearn export`: a trained backbone for use without locallearn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from locallearn.cli.console import say, show_json
from locallearn.cli.parser import Parser
from locallearn.export import Format, export_run

HELP = """Write a trained backbone for use without locallearn.

examples:
  locallearn export runs/ONE --out mynet                        # config.json and model.safetensors
  locallearn export runs/ONE --out mynet --checkpoint best
  locallearn export runs/ONE --out mynet --format torch-export  # model.pt2, loads without the network's code
  locallearn export runs/ONE --out mynet --format onnx

config.json holds the network's name in torchvision or timm, its classes, the size and constants of its images, how it
was trained, and the lines of Python that load it (how_to_load). Auxiliary networks are left out. The run's data set is
not needed.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn export RUN --out FOLDER [options]")
    parser.add_argument("run", type=Path, help="the run folder, or a checkpoint in it")
    parser.add_argument("--out", type=Path, required=True, help="the new folder")
    parser.add_argument("--format", type=Format, default="safetensors", help="what to write")
    parser.add_argument("--checkpoint", type=Literal["last", "best"], default="last", help="which checkpoint")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(config: Any) -> None:
    """Export, and print which file was written and how to load it."""
    path = export_run(config.run, config.out, format=config.format, checkpoint=config.checkpoint)
    about = json.loads((config.out / "config.json").read_text())
    if config.json:
        show_json({"path": str(path), "bytes": path.stat().st_size, "config": about})
        return
    how = about["locallearn"]["trained"]
    accuracy, precision = how["test_accuracy"], how["test_precision"]
    tested = "" if accuracy is None else f", test accuracy {accuracy:.2%} in {precision}"
    say(f"wrote {path} ({path.stat().st_size:,} bytes): {about['architecture']}{tested}. Load it by:")
    for line in about["how_to_load"]:
        say(f"  {line}")
