"""`locallearn report`: one page of HTML that compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locallearn._utils.quantities import counted
from locallearn.cli.console import say, show_json, work
from locallearn.cli.parser import Parser
from locallearn.cli.settings import read_settings, runs_in
from locallearn.report import FIGURES, read_run, write_page
from locallearn.training import RunFolder, TrainSettings

_FIGURES = "\n".join(f"  {name:22}{what}" for name, what in FIGURES.items())

HELP = f"""Compare runs on one page of HTML, which needs no network, no server and no other file.

examples:
  locallearn report runs/BP runs/DGL -o report.html
  locallearn report runs/* --figures figures          # each figure also as PNG, SVG and PDF
  locallearn report runs/* --only accuracy-epoch memory
  locallearn report runs/CIFAR runs/SVHN --only wrappers    # the one figure that compares data sets

Runs that differ by seed alone are one line: mean and standard deviation. Results of locallearn analyze are shown too.
Memory and schedule of a training step are counted once without training, and stored in the run folder.

figures:
{_FIGURES}
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn report RUN [RUN ...] [options]")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of them")
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="the file to write")
    parser.add_argument("--figures", type=Path | None, help="also write each figure to this folder, for print")
    parser.add_argument("--only", nargs="+", default=[], help="names of the figures to make; by default all")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def run(config: Any) -> None:
    """Read the runs, and write the page."""
    runs = [read_run(path, read_settings(TrainSettings, RunFolder(path))) for path in runs_in(config.runs)]
    with work() as tell:
        names = write_page(runs, config.out, only=config.only, figures=config.figures, say=tell)
    if config.json:
        show_json({"report": str(config.out), "figures": names, "bytes": config.out.stat().st_size})
        return
    say(
        f"{config.out}: {counted(len(runs), 'run')}, {counted(len(names), 'figure')},"
        f" {config.out.stat().st_size / 1e6:.1f} MB"
    )
