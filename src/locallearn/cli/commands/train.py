"""`locallearn train`: one network by one rule."""

from __future__ import annotations

from typing import Any

from locallearn._utils.atomic_files import file_name
from locallearn.cli.console import ConsoleWatcher, mebibytes, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.recipe_option import add_recipe
from locallearn.cli.settings import add_run, read_settings, resume_command, resumed_checkpoint, run_path, settings_from
from locallearn.training import RunFolder, TrainSettings, train

HELP = """Train one network by one rule.

examples:
  locallearn train --data digits --model resnet20 --rule dgl
  locallearn train --model resnet32 --data cifar10 --rule auglocal --rule.depth 4 --epochs 1
  locallearn train --rule "hpff(man(dgl))"                   # wrappers around a rule
  locallearn train --rule auglocal --modules infopro-16 --batch 1024 --optimizer.lr 0.8 --epochs 400 \\
                   --schedule paper-cosine
  locallearn train --data path/to/images --image-size 160 --workers 8 --bad-images skip    # class folders or tar shards
  locallearn train --config runs/ONE/settings.yaml --out runs/ANOTHER
  locallearn train --resume runs/ONE                        # continue, with the same bits
  locallearn train --recipe hpff/table1/cifar10-resnet32-dgl --seed 1    # a published result; options override it

--rule.help NAME shows a rule's settings; --optimizer.help NAME and --schedule.help NAME do the same.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn train [options]")
    add_run(parser, TrainSettings)
    add_recipe(parser)
    return parser


def run(config: Any) -> None:
    """Train, and print the result."""
    given = settings_from(TrainSettings, parser(), config)
    others = config.out is not None or given != TrainSettings()
    if (resume := resumed_checkpoint(config, others=others)) is not None:
        folder = RunFolder(config.resume)
        settings = read_settings(TrainSettings, folder)
    else:
        settings = given
        name = file_name(f"{settings.data}-{settings.model}-{settings.rule}".lower())
        folder = RunFolder(run_path(config.out, name))
    console = ConsoleWatcher(str(settings.rule), settings.epochs, batch=settings.batch)
    with console.shown(resume_command("train", folder)) as watcher:
        result = train(settings, folder.path, resume=resume, watcher=watcher, say=say)
    if config.json:
        show_json(result)
        return
    rows = [
        ("test accuracy", f"{result['test_accuracy']:.2%} (best {result['best_accuracy']:.2%})"),
        *(("top-5 accuracy", f"{result[name]:.2%}") for name in ("test_top5_accuracy",) if name in result),
        ("seconds per epoch", f"{result['seconds_per_epoch']:.1f}"),
        ("peak activation memory", mebibytes(result["peak_activation_bytes"])),
        ("parameters", f"{result['backbone_parameters']:,} + {result['auxiliary_parameters']:,} auxiliary"),
        ("run folder", result["folder"]),
    ]
    show("result", ("", ""), rows, texts=2)
