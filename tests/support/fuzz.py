"""Random settings, right and wrong, through Python and through the command line's parser.

Each example ends in a training step or in one sentence. 5,000 of them: `python tests/support/fuzz.py 5000`.
"""

from __future__ import annotations

import copy
import io
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import find, names
from locallearn.cli.commands.train import parser
from locallearn.cli.rule_syntax import normalised, short_names
from locallearn.cli.settings import settings_from
from locallearn.data import Augmentation, Border, ImageSet, Split
from locallearn.training import Fit, TrainSettings, build
from locallearn.training.from_settings import training_batches, with_mixing

SECONDS = 30
"""After which an example counts as hung."""

ODD: list[Any] = [
    *(
        None,
        True,
        "",
        "x",
        "all",
        [],
        [1],
        ["a", 2],
        {},
        float("nan"),
        float("inf"),
        10**30,
        1.5,
        b"x",
        object,
        {1},
        -1,
    ),
]
"""Values of the wrong type or size, for most settings."""

WRONG: dict[str, list[Any]] = {
    "modules": [0, 99, "2", "peak:99", "peak:", "peak:x", "memory:@", "memory:1@8", "hpff-0", "infopro-16", "(", ["9"]],
    "layers": [[], "(", ["nothing"], "11"],
    "device": ["tpu", "cuda:9"],
    "head": ["c", "1c2f3", "9c9f"],
    "lambda1": [0, (), (1, "x"), (1.0, 2.0, 3.0)],
    "epochs": [0, (), (0,), (2, 1), "5"],
    "loggers": [("x",), "wandb", (1,)],
    "seed": [2**32, 2**64],
}
RIGHT: dict[str, list[Any]] = {
    "modules": [
        "all",
        1,
        2,
        3,
        "peak:2",
        "macs:2",
        "parameters:2",
        "memory:9GiB@8",
        "memory:1MiB@8",
        "0|3",
        ["0", "3"],
    ],
    "layers": [None, r"\d", ["0", "3", "6"], [".*"], "0"],
    "memory": ["fast", "fast", "fast", "lean", "least"],
    "overlap": [0],  # others need a GPU
    "device": ["cpu", "auto", "cpu:0"],
    "step": ["together", "module"],
    "precision": ["fp32", "bf16"],
    "bad_images": ["refuse", "skip"],
    "fidelity": ["official", "paper"],
    "head": ["1c2f", "0c1f", "2c2f", "1c1f"],
    "task_loss": ["cross-entropy", "contrastive"],
    "lambda1": [(5.0, 1.0), (1.0,), (0.0, 2.0)],
    "lambda2": [(5.0, 1.0), (1.0,), (0.0, 2.0)],
    "grid": [None, 1, 2, 8],
    "epochs": [1, 2, 10, (1, 2)],
    "after": [(1,), (2, 3)],
    "module_lr": [(), (2.0, 1.0), (0.5,)],
    "loss": ["cross-entropy", "cross-entropy", "binary-cross-entropy"],
    "rand_augment": [None, (2, 9), (1, 0)],
    "scheduler": ["MultiStepLR", "StepLR", "OneCycleLR", "CosineAnnealingLR"],
    "arguments": [{}, {"milestones": [2]}, {"step_size": 1}, {"pct_start": 0.4}],
    "each": ["epoch", "step"],
    "data_dir": [Path("data")],
    "compile": [False],  # takes minutes
    "data": ["digits"],  # the images are always those of this file, and so is the network
    "model": ["resnet20"],
    "threads": [None],  # those of the process stay
    "seed": [0, 1, 2**31],
    "span": [1, 2, 3],
    "cuda_graphs": [False],
    "loggers": [("tensorboard",), ()],
}
NUMBERS: dict[str, list[Any]] = {
    "int": [1, 2, 3, 4, 5, 8, 0],
    "float": [0.1, 0.5, 0.9, 1.0, 0.0, 2.0, 1e-9],
    "bool": [True, False],
    "None": [None],
}


class Draw(random.Random):
    """Random numbers of an example.

    Attributes:
        wild: share of wrong values.
        busy: share of settings that are given.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.wild, self.busy = self.choice([0.0, 0.0, 0.02, 0.3]), self.choice([0.05, 0.2, 0.5])


class Hung(BaseException):
    """An example took too long."""


@cache
def images() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 8, 8, 3), generator=draw, dtype=torch.uint8).numpy()
    labels = torch.randint(0, 3, (24,), generator=draw).numpy()
    split = Split(images=pixels, labels=labels)
    augmentation = Augmentation(pad=1, border=Border.REFLECT, flip=True)
    return ImageSet(
        train=split, test=split, classes=("a", "b", "c"), mean=(127.0,) * 3, std=(64.0,) * 3, augmentation=augmentation
    )


@cache
def network() -> nn.Sequential:
    """Three layers with weights."""
    parts: list[nn.Module] = []
    for before, after in ((3, 4), (4, 4), (4, 8)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def value_of(draw: Draw, name: str, kind: str) -> Any:
    if draw.random() < draw.wild:
        return draw.choice(WRONG.get(name, []) + ODD)
    kinds = [part for part in kind.split(" | ") if part in NUMBERS]
    return draw.choice(RIGHT.get(name) or NUMBERS[draw.choice(kinds)])


def changes(draw: Draw, kind: type) -> dict[str, Any]:
    """Values of some of a class's settings, other than rules, optimizers and schedules."""
    given = [field for field in fields(kind) if draw.random() < draw.busy and str(field.type)[-8:] not in _CLASSES]
    return {field.name: value_of(draw, field.name, str(field.type)) for field in given}


_CLASSES = {"Rule", "Settings", "Schedule", "le, ...]"}


def rule(draw: Draw, depth: int = 0) -> Any:
    if draw.random() < draw.wild / 3:
        return draw.choice(ODD)
    made = find("rules", draw.choice(sorted(names("rules"))))
    if not isinstance(made, type):
        return made()
    values = changes(draw, made) if fields_of(made) else {}
    for field in fields_of(made):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if field.name == "rule" and not (has_default and draw.random() < 0.5):
            values["rule"] = rule(draw, depth + 1) if depth < 3 else find("rules", "dgl")()
        if field.name == "rules":
            values["rules"] = tuple(rule(draw, depth + 1) for _ in range(draw.randrange(4)))
    return made(**values)


def fields_of(made: type) -> tuple[Any, ...]:
    return fields(made) if hasattr(made, "__dataclass_fields__") else ()


def one_of(draw: Draw, option: str) -> Any:
    kind = find_class(draw.choice(sorted(short_names(option).values())))
    return kind(**changes(draw, kind))


def find_class(path: str) -> type:
    import locallearn.training

    return getattr(locallearn.training, path.rpartition(".")[2])


def python_settings(draw: Draw) -> TrainSettings:
    """Settings made in Python."""
    values = changes(draw, TrainSettings)
    values["rule"] = rule(draw)
    values["batch"] = values.get("batch", 8)
    for name in ("optimizer", "schedule"):
        if draw.random() < 0.5:
            values[name] = one_of(draw, f"--{name}") if draw.random() >= draw.wild else draw.choice(ODD)
    return TrainSettings(**values)


def text_of(draw: Draw, value: Any) -> str:
    texts = [str(value), f"{value!r}", f'"{value}"'] if draw.random() < draw.wild else [str(value)]
    return "null" if value is None else draw.choice(texts)


ODD_RULES = ["DGL", "dlg", "", "locallearn.DGL", "a.b", "1", "(", "None"]
ODD_PARTS = ["dgl", "x=", "=1", "depth=3", "**a", "*a", "lambda: 1", "[", "a.b.c", "é=1", "x y", "\0"]
ODD_CLASSES = ["sdg", "cosine(warmup=2)", "", "{}", "[]", "a.b", '{"class_path": "SGD"}']
ODD_ARGUMENTS = ["--", "-", "--=", "x", "--lr", "--rule", "-1", "--config", "{", "\udcff", "--rule.rule.depth=2", "-h"]


def rule_text(draw: Draw, depth: int = 0) -> str:
    name = draw.choice(ODD_RULES if draw.random() < draw.wild / 3 else sorted(names("rules")))
    given = []
    if name in names("rules") and fields_of(made := find("rules", name)):
        given = [f"{key}={value!r}" for key, value in changes(draw, made).items()]
        if any(field.name == "rule" for field in fields_of(made)):
            given.insert(0, rule_text(draw, depth + 1) if depth < 3 else "dgl")
    if draw.random() < draw.wild / 3:
        given.append(draw.choice(ODD_PARTS))
    return f"{name}({', '.join(given)})" if given else name


def typed_arguments(draw: Draw) -> list[str]:
    """Arguments of `locallearn train`."""
    arguments = ["--batch", "8", "--rule", rule_text(draw)]
    for name, value in changes(draw, TrainSettings).items():
        option = draw.choice([name, name.replace("_", "-")])
        arguments += (
            [f"--{option}", text_of(draw, value)] if draw.random() < 0.5 else [f"--{option}={text_of(draw, value)}"]
        )
    for name in ("optimizer", "schedule"):
        if draw.random() < draw.busy:
            short = draw.choice(ODD_CLASSES if draw.random() < draw.wild else sorted(short_names(f"--{name}")))
            arguments += [f"--{name}", short]
        if draw.random() < draw.wild:
            setting = draw.choice(["lr", "momentum", "warmup", "epochs", "class_path", "init_args", "x", "lr.x", ""])
            arguments += [f"--{name}.{setting}", text_of(draw, draw.choice([*ODD, *NUMBERS["float"]]))]
    if draw.random() < draw.wild:
        setting = draw.choice(["depth", "hidden", "rule", "rule.depth", "rule.rule", "class_path", "fidelity", "x"])
        arguments.append(f"--rule.{setting}={draw.choice(['dgl', 'AugLocal', '2', 'x', '', '{}', 'null', '[1'])}")
    if draw.random() < draw.wild / 2:
        arguments.insert(draw.randrange(len(arguments)), draw.choice(ODD_ARGUMENTS))
    return arguments


def typed_settings(arguments: list[str]) -> TrainSettings:
    """Settings from the command line's own parser; its exit becomes an error with the sentence that it printed."""
    told = io.StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(told):
            made = parser()
            return settings_from(TrainSettings, made, made.parse_args(normalised(arguments)))
    except SystemExit:
        sentence = told.getvalue()
        if sentence.startswith("usage: "):  # --help
            sentence = "error: help"
        assert sentence.startswith("error: "), sentence
        raise LocalLearnError(sentence.removeprefix("error: ").removesuffix("\n")) from None


def step(settings: TrainSettings) -> None:
    """One training step of three layers."""
    from locallearn.training import from_settings

    original = from_settings.make_model
    from_settings.make_model = lambda *_, **__: copy.deepcopy(network())
    try:
        net = build(settings, images())
    finally:
        from_settings.make_model = original
    feed = settings.feed(torch.device("cpu"))
    train = training_batches(settings, images(), feed, drop_single=True)
    settings.refuse_misfit(net, steps=len(train))
    train = with_mixing(settings, train, feed, classes=len(images().classes))
    fit = Fit(net, train, images().testing(feed), settings)
    batch, labels = next(iter(train.epoch(1)))
    losses = fit.train_step(batch, labels, learning_rate=settings.lr(epoch=1, step=0, steps=len(train)))
    assert losses.isfinite().all()


def outcome(number: int) -> str:
    """What an example ends in: "step", or its sentence.

    Raises:
        AssertionError: it ends in anything else; with all that is needed to see why.
    """
    draw = Draw(number)
    asked: Any = "settings that could not be made"
    with watched():
        try:
            if number % 2:
                asked = typed_arguments(draw)
                settings = typed_settings(asked)
            else:
                settings = asked = python_settings(draw)
            step(settings)
            return "step"
        except LocalLearnError as error:
            sentence = str(error)
            assert sentence.strip(), f"example {number}: {asked}: an empty sentence"
            assert "\n" not in sentence.strip(), f"example {number}: {asked}: {sentence}"
            assert "Traceback" not in sentence
            return sentence
        except (Exception, Hung) as error:
            raise AssertionError(f"example {number}: {asked}\n{traceback.format_exc()}") from error


@contextmanager
def watched() -> Iterator[None]:
    """Warnings are not told, and what takes too long is stopped."""

    def hung(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(count: int, first: int = 0, say: Callable[[str], None] = print) -> int:
    torch.set_num_threads(1)
    steps, sentences, wrong, start = 0, Counter[str](), Counter[str](), time.monotonic()
    for number in range(first, first + count):
        try:
            told = outcome(number)
        except AssertionError as error:
            last = str(error).strip().splitlines()[-1]
            if not wrong[last]:
                say(f"{error}\n")
            wrong[last] += 1
            continue
        steps += told == "step"
        sentences[told] += told != "step"
    seconds = time.monotonic() - start
    say(f"{count} examples in {seconds:.0f} s: {steps} steps, {sentences.total()} sentences ({len(sentences)} kinds)")
    say(f"and {wrong.total()} wrong ends ({len(wrong)} different)")
    if say is print and "--sentences" in sys.argv:
        Path("sentences.txt").write_text("\n".join(sorted(sentences)))
    return bool(wrong)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(*map(int, [word for word in sys.argv[1:] if word.isdigit()])))
