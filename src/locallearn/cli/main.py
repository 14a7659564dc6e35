"""Runs a command; turns errors and warnings into sentences."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn._utils.registry import trusting
from locallearn.cli.trust import trust_of
from locallearn.cli.which_process import which_process

HELP = """Supervised local learning: train deep networks in gradient-isolated local modules.

  locallearn compare --data digits --model resnet20    several rules side by side, in a minute or two
  locallearn cost --model resnet110 --rule dgl         what a training step costs, without training
  locallearn plan --rule auglocal --memory 100MiB      the fastest settings that fit
  locallearn simulate --rule dgl --devices 64          the same on many devices: time, idle time, memory, traffic
  locallearn train --rule auglocal --rule.depth 4      train one network
  locallearn reproduce hpff/table3                     a table of the papers, beside its published numbers
  locallearn evaluate RUN --data stl10                 a trained network on other images
  locallearn analyze probes RUN RUN                    what each layer learned; also cka, tsne, features
  locallearn export RUN --out FOLDER                   the backbone for torchvision, timm, torch.export, ONNX
  locallearn report RUN RUN -o report.html             a page that compares runs: tables, figures, settings
  locallearn detect RUN --coco FOLDER                  the backbone in Mask R-CNN, fine-tuned and evaluated on COCO

COMMAND --help shows a command's options and examples; --version prints the version. Run folders, exports and --config
files may name only registered models, data sets and rules; --trust-code imports any other code that they name.
"""

COMMANDS = {
    "train": "Train one network by one rule.",
    "compare": "Train by several rules, one after the other: same first weights, same batches.",
    "cost": "Parameters, multiply-accumulates and peak memory of a training step, beside BP and checkpointing.",
    "plan": "Find the fastest partition, auxiliary depth and memory setting that fit a memory budget.",
    "simulate": "Time, memory and traffic of a step on many devices, by BP and by a local rule.",
    "data": "Download or import a data set into the data folder.",
    "list": "List the names of models, data sets, rules, splits, loggers, schedules, and recipes of the papers.",
    "reproduce": "A table of the papers, beside its published numbers.",
    "evaluate": "Test trained networks on their own test images, or on those of another data set.",
    "analyze": "Compare what networks learned, layer by layer: CKA, linear probes, t-SNE, feature maps.",
    "export": "Write a trained backbone that loads without locallearn.",
    "report": "Compare runs on one page of HTML: tables, the papers' figures, settings.",
    "detect": "Fine-tune Mask R-CNN on a trained backbone and evaluate it on COCO (AugLocal, Table 12).",
}

_USER_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 for success, 1 for an error told in one sentence, 128 and the number of a signal that stopped it (130 after
        Ctrl-C). Wrong options exit with 2.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    trust, arguments = trust_of(arguments)
    try:
        with warnings.catch_warnings(), trusting(trust):
            warnings.showwarning = _warnings_as_sentences(warnings.showwarning)
            return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sentence = _sentence_of(error)
        if sentence is None:
            raise
        return _fail(sentence, arguments)


def _sentence_of(error: Exception) -> str | None:
    """What to tell a user; None of a fault of ours."""
    if isinstance(error, LocalLearnError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}." if error.errno in _USER_ERRORS else None
    if isinstance(error, ValueError):
        return "a path has a null byte: give the name of a file or folder." if "null byte" in str(error) else None
    from locallearn._torch.device import is_out_of_memory  # imports PyTorch, which --help can do without

    if is_out_of_memory(error):
        return (
            "memory ran out: take smaller or fewer images, or a smaller batch; locallearn plan finds settings that fit."
        )
    return None


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())  # without the imports of any command
        return 0
    named = [arguments[0]] if arguments[0] in COMMANDS else list(COMMANDS)
    try:
        from locallearn.cli.parser import Parser
        from locallearn.cli.rule_syntax import normalised, recipe_first, refuse_twice
        from locallearn.cli.typed_command import COMMAND

        modules = {name: import_module(f"locallearn.cli.commands.{name}") for name in named}
    except ModuleNotFoundError as error:
        raise LocalLearnError(f"{error.name} is not installed: run pip install 'locallearn[cli]'.") from error
    from locallearn import __version__
    from locallearn.training import Interrupted

    refuse_twice(arguments)
    parser = Parser(prog="locallearn", description=HELP, usage="locallearn COMMAND [options]", version=__version__)
    commands = parser.add_subcommands(metavar="COMMAND")
    for name, module in modules.items():
        commands.add_subcommand(name, command := module.parser(), help=COMMANDS[name])
        if hasattr(module, "add_kinds"):  # commands of a command, which jsonargparse takes after the outer one alone
            module.add_kinds(command)
        COMMAND.set((arguments, command))
    config = parser.parse_args(normalised(recipe_first(arguments)))
    gc.freeze()  # what was imported stays: garbage collections need not look at it again
    try:
        modules[config.subcommand].run(config[config.subcommand])
    except Interrupted as error:
        return 128 + error.signal
    return 0


def command() -> NoReturn:
    """`locallearn` as a process of its own.

    One of several that fails ends at once: what PyTorch still has under way for the others may abort the usual end.
    """
    try:
        status = main()
    except Exception:  # a fault of ours
        traceback.print_exc()
        status = 1
    if status and which_process():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _overview() -> str:
    lines = [f"  {name:10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: locallearn COMMAND [options]", "", HELP.rstrip(), "", "commands:", *lines])


def _warnings_as_sentences(default: Callable[..., None]) -> Callable[..., None]:
    """A `warnings.showwarning` that prints our own warnings as sentences, each once."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, LocalLearnWarning):
            if str(message) not in shown:
                print(f"note: {message}", file=sys.stderr)
            shown.add(str(message))
        else:
            default(message, category, *rest, **more)

    return show


def _fail(sentence: str, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        from locallearn.cli.console import show_json

        show_json({"error": sentence})
    print(f"error: {which_process()}{sentence}", file=sys.stderr)
    return 1
