"""`locallearn evaluate`: trained networks on their own test images or on those of another data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.cli.console import say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.recipe_option import of_kind, refuse_other_run
from locallearn.cli.settings import read_settings, runs_in
from locallearn.training import RunFolder, TrainSettings, Transfer, evaluate_run

HELP = """Test trained networks on their own test images, or on those of another data set.

examples:
  locallearn evaluate runs/ONE
  locallearn evaluate runs/BP runs/DGL --data stl10   # trained on cifar10: MLAAN's generalisation study (Table VI)
  locallearn evaluate runs/ONE --heads                # every module's auxiliary head too
  locallearn evaluate runs/ONE --checkpoint best --json
  locallearn evaluate runs/ONE --recipe mlaan/table6/cifar10-resnet32-dgl    # as in the paper, beside its number

Images of another data set are resized, with antialiasing, to the network's training size and normalised by the training
set's constants. Classes are matched by name; car equals automobile. Images of classes unknown to the network are left
out. Answers that are no class of the data set count as wrong. The output reports both.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn evaluate RUN [RUN ...] [options]")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of them")
    parser.add_argument("--data", type=str | None, help="a data set, as for train; by default the run's own")
    parser.add_argument("--data_dir", type=Path | None, help="folder of the data set; by default the run's own")
    parser.add_argument("--checkpoint", type=Literal["last", "best"], default="last", help="which checkpoint")
    parser.add_argument("--device", type=str | None, help="cpu, cuda, ...; by default the run's own")
    parser.add_argument(
        "--bad_images",
        type=Literal["refuse", "skip"] | None,
        help="for image files that cannot be read: stop (refuse) or leave them out (skip); by default as in the run",
    )
    parser.add_argument("--recipe", type=str | None, help="test on a published row's data set, beside its number")
    parser.add_argument("--heads", action="store_true", help="test every module's auxiliary head too")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def run(config: Any) -> None:
    """Test each run, and print the table."""
    recipe, data = None, config.data
    if config.recipe is not None:
        recipe = of_kind("evaluate", config.recipe)
        if data not in (None, recipe.test_data):
            raise LocalLearnError(f"recipe {recipe.name} tests on {recipe.test_data}: leave out --data {data}.")
        data = recipe.test_data
    results: dict[str, Transfer] = {}
    rules: dict[str, str] = {}
    for path in runs_in(config.runs):
        settings = read_settings(TrainSettings, RunFolder(path))
        if recipe is not None:
            refuse_other_run(recipe, path, settings)
        rules[str(path)] = f"{settings.rule}, {settings.model}, {settings.data}"
        results[str(path)] = evaluate_run(
            path,
            settings,
            data=data,
            data_dir=config.data_dir,
            checkpoint=config.checkpoint,
            device=config.device,
            bad_images=config.bad_images,
            heads=config.heads,
        )
    if config.json:
        published = {} if recipe is None else {"published": {one.quantity.title: one.value for one in recipe.published}}
        show_json({path: dataclasses.asdict(result) | published for path, result in results.items()})
        return
    columns = {
        "run": list(results),
        "trained": list(rules.values()),
        "test images": [f"{result.images:,}" for result in results.values()],
        "accuracy": [f"{result.accuracy:.2%}" for result in results.values()],
    }
    if recipe is not None:
        columns["published"] = [str(one) for one in recipe.published] * len(results)
    if any(result.top5_accuracy is not None for result in results.values()):
        columns["top-5"] = ["-" if r.top5_accuracy is None else f"{r.top5_accuracy:.2%}" for r in results.values()]
    if any(result.never_right for result in results.values()):  # else this is the accuracy
        columns["among shared classes"] = [f"{result.shared_accuracy:.2%}" for result in results.values()]
    rows = list(zip(*columns.values(), strict=True))
    show(f"tested on {data or 'their own test images'}", tuple(columns), rows, texts=2)
    for path, result in results.items():
        _explain(path, result)
        if result.head_accuracies:
            heads = [(modules, f"{accuracy:.2%}") for modules, accuracy in result.head_accuracies.items()]
            show(f"{path}: heads", ("objective over", "accuracy"), heads)


def _explain(path: str, result: Transfer) -> None:
    if result.left_out or result.never_right:
        names = ", ".join(a if a == b else f"{a} = {b}" for a, b in result.classes.items())
        say(f"{path}: shares {counted(len(result.classes), 'class')} by name: {names}.")
    for name, images in result.left_out.items():
        say(f"  {name}: the network does not know this class; left out: {counted(images, 'image')}.")
    for name, times in result.never_right.items():
        say(
            f"  {name}: not a class of the test images; the network answered it {counted(times, 'time')}, counted as"
            " wrong."
        )
    if result.skipped:
        say(
            f"  left out {counted(len(result.skipped), 'image file')} that cannot be read:"
            f" {', '.join(result.skipped[:3])}."
        )
