"""The command line."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from locallearn._errors import LocalLearnError, LocalLearnWarning

HELP = """Supervised local learning: train deep networks in gradient-isolated local modules.

  locallearn compare --data digits --model resnet20    several rules side by side, in a minute or two
  locallearn cost --model resnet110 --rule dgl         what a training step costs, without training
  locallearn train --rule auglocal --rule.depth 4      train one network
  locallearn evaluate RUN --data stl10                 a trained network on other images
  locallearn export RUN --out FOLDER                   the backbone alone, for torchvision, timm, torch.export, ONNX
  locallearn detect RUN --coco FOLDER                  the backbone in Mask R-CNN, fine-tuned and evaluated on COCO
  locallearn list                                      all names of models, data sets, rules and splits

COMMAND --help shows a command's options and examples.
"""


_USERS_MISTAKES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for an error that is told in one sentence; 130 when stopped by Ctrl-C. Wrong options exit with 2.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # rules and models in the user's own files are found from where the user stands
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell(warnings.showwarning)
            return _run(arguments)
    except LocalLearnError as error:
        return _fail(str(error), arguments)
    except OSError as error:
        if error.errno not in _USERS_MISTAKES:
            raise
        return _fail(f"{error.filename or 'a file'}: {error.strerror}.", arguments)
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str]) -> int:
    try:
        from locallearn.cli import _compare, _cost, _data, _detect, _evaluate, _export, _list, _train
        from locallearn.cli._parser import Parser, spelled_out
    except ModuleNotFoundError as error:
        raise LocalLearnError(f"{error.name} is not installed: run pip install 'locallearn[cli]'.") from None
    from locallearn import __version__
    from locallearn.training import Interrupted

    parser = Parser(prog="locallearn", description=HELP, usage="locallearn COMMAND [options]", version=__version__)
    commands = parser.add_subcommands(metavar="COMMAND")
    modules = {"train": _train, "compare": _compare, "cost": _cost, "data": _data, "list": _list, "evaluate": _evaluate}
    modules |= {"export": _export, "detect": _detect}
    for name, module in modules.items():
        commands.add_subcommand(name, module.parser(), help=module.HELP.partition("\n")[0])
    config = parser.parse_args(spelled_out(arguments or ["--help"]))
    try:
        modules[config.subcommand].run(config[config.subcommand])
    except Interrupted:
        return 130
    return 0


def _tell(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Warnings of our own as sentences, each told once."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, LocalLearnWarning):
            if str(message) not in told:
                print(f"note: {message}", file=sys.stderr)
            told.add(str(message))
        else:
            otherwise(message, category, *rest, **more)

    return show


def _fail(sentence: str, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        from locallearn.cli._console import show_json

        show_json({"error": sentence})
    print(f"error: {sentence}", file=sys.stderr)
    return 1
