"""`locallearn detect`: a trained backbone inside Mask R-CNN on COCO."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import file_name
from locallearn._utils.quantities import counted
from locallearn.cli.console import ConsoleWatcher, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.recipe_option import DetectionOption, add_recipe, of_kind, refuse_other_run
from locallearn.cli.settings import add_run, read_settings, resume_command, resumed_checkpoint, run_path, settings_from
from locallearn.detection import DetectSettings, detect
from locallearn.training import RunFolder, TrainSettings

HELP = """Fine-tune Mask R-CNN on a trained backbone and evaluate it on COCO (AugLocal, Table 12).

examples:
  locallearn detect runs/ONE --coco path/to/coco                    # the paper's 12 epochs at batch 16
  locallearn detect myexport --coco path/to/coco --optimizer sgd --optimizer.lr 0.02
  locallearn detect runs/ONE --coco tiny --epochs 1 --batch 2 --max-size 256 --regions 128 --proposals 200
  locallearn detect runs/ONE --coco path/to/coco --recipe auglocal/table12/imagenet-resnet34-bp
  locallearn detect --resume runs/DETECTION                         # as if it had not stopped

The backbone comes from a run folder, a checkpoint in it, or an export folder (safetensors). Its features must have
strides 4, 8, 16 and 32, as in a ResNet for ImageNet; networks for 32 x 32 images are refused. Prints AP, AP50 and AP75
of boxes and masks. Needs pip install 'locallearn[cli,coco]'.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn detect RUN --coco FOLDER [options]")
    parser.add_argument("run", nargs="?", type=Path | None, help="source of the backbone, as --source")
    add_run(parser, DetectSettings)
    add_recipe(parser, DetectionOption)
    return parser


def run(config: Any) -> None:
    """Fine-tune and evaluate, and print the table."""
    recipe = of_kind("detect", config.recipe) if "recipe" in config else None
    settings = settings_from(DetectSettings, parser(), config)
    if (resume := resumed_checkpoint(config, others=[str(config.run)] if config.run else [])) is not None:
        folder = RunFolder(config.resume)
        settings = read_settings(DetectSettings, folder, "detect")
    else:
        settings = dataclasses.replace(settings, source=config.run or settings.source)
        name = file_name(f"detect-{settings.source.name if settings.source else ''}")
        folder = RunFolder(run_path(config, name))
    if recipe is not None and settings.source is not None and RunFolder(settings.source).settings.exists():
        refuse_other_run(recipe, settings.source, read_settings(TrainSettings, RunFolder(settings.source)))
    with ConsoleWatcher("detect", settings.epochs, batch=settings.batch).shown(
        resume_command("detect", folder)
    ) as watcher:
        result = detect(settings, folder.path, resume=resume, watcher=watcher)
    published = {} if recipe is None else {one.quantity.title: one.value for one in recipe.published}
    if config.json:
        show_json(result | ({"published": published} if published else {}))
        return
    columns = ("", "AP", "AP50", "AP75")
    rows = [
        (name, *(f"{100 * result[f'{key}_{value}']:.1f}" for value in ("ap", "ap50", "ap75")))
        for name, key in (("boxes", "box"), ("masks", "mask"))
    ]
    for name in ("box", "mask") if published else ():
        cells = (f"{published[f'{name} {value}']:.1f}" for value in columns[1:])
        rows.append((f"published, {name}", *cells))
    show("average precision", columns, rows)
    say(
        f"{result['backbone']['model']} in Mask R-CNN, {counted(result['epochs'], 'epoch')}; run folder"
        f" {result['folder']}"
    )
