"""`locallearn plan`: settings that fit a budget of memory, at the least time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from locallearn._chain.layout import Shape
from locallearn._figures.style import refuse_picture
from locallearn._planning.depths import depth_of
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, format_bytes, parse_bytes
from locallearn.cli.console import say, show, show_json, work
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.step_options import add_step, step_of
from locallearn.cli.typed_command import COMMAND, typed_options
from locallearn.cost import Candidate, Plan, draw_plan, plan
from locallearn.cost.planner import DEPTHS, RULES
from locallearn.cost.warning import advice_of
from locallearn.rules import Rule
from locallearn.training import make_model, rule_text
from locallearn.training.settings.commands import step_command

_DEFAULT_IMAGES = (3, 32, 32, 10)
"""Shape and number of classes of CIFAR-10, on which `train` trains by default."""

HELP = """Find the partition, auxiliary depth and memory setting whose step fits, at the least time.

Nothing is trained and no GPU is needed. The peak counts everything: parameters, gradients, optimizer state, EMA copies,
batch and activations. Where nothing fits otherwise, the plan splits the batch into micro-batches (--accumulate).

examples:
  locallearn plan --model resnet110 --rule auglocal --batch 1024 --memory 1GiB
  locallearn plan --model resnet32 --rule dgl --batch 256 --memory 60MiB --plot plan.png
  locallearn plan --model resnet110 --rules auto --batch 1024 --memory 1GiB     # which rule? or checkpointing?
  locallearn plan --model resnet110 --rule auglocal --depths 4 --batch 512 --memory 500MB --json
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn plan --memory SIZE [options]")
    parser.add_argument("--memory", type=str, required=True, help="the budget: 1GiB, 500MiB, 1.5GB ...")
    add_step(parser)
    parser.add_argument(
        "--depths",
        nargs="+",
        type=int,
        help="auxiliary depths to try, for rules that have one; by default the rule's where it is given, else 2 to 6",
    )
    parser.add_argument(
        "--rules", nargs="+", type=str, help="instead of --rule, several; auto for all, with the papers' wrappers"
    )
    parser.add_argument("--plot", type=Path | None, default=None, help="draw memory and time: a .png, .svg ...")
    return parser


def run(config: Any) -> None:
    """Find and print the plan."""
    values = parser().instantiate(config)
    budget = parse_bytes(values.memory)
    shape, settings, title = step_of(values)
    depths = _depths(values)
    if values.plot is not None:
        refuse_picture(values.plot)
    with work() as report:
        result = plan(
            make_model(values.model, classes=values.classes, image_shape=shape),
            values.rule if values.rules is None else list(depths),
            depths=depths,
            input_shape=shape,
            batch=values.batch,
            budget=budget,
            layers=values.layers,
            make_stepper=settings.make_stepper,
            autocast=settings.autocast,
            say=report,
        )
    command, advice = _command(values, result.best, shape), advice_of(result)
    data = _data(values, shape)
    if values.plot is not None:
        draw_plan(result, values.plot, title=title)
        say(f"plot: {values.plot}")
    if values.json:
        show_json(
            {
                "budget": budget,
                "best": _plain(result.best),
                "candidates": [_plain(one) for one in result.candidates],
                "baselines": [_plain(one) for one in result.baselines],
                "left_out": list(result.left_out),
                "command": command,
                "data": data,
                "advice": advice,
            }
        )
        return
    _show(result, title)
    apart = "time decides between these rules, not accuracy, in which they differ: locallearn compare measures it."
    for sentence in (
        *result.left_out,
        advice,
        apart if len(depths) > 1 else None,
        f"the fastest that fits: {command}",
        data,
    ):
        if sentence is not None:
            say(sentence)


def _depths(values: Any) -> Mapping[Rule, Sequence[int]]:
    """The rules to look at, and the depths to try of each."""
    given = _given(values)
    own = {rule: depth for rule in given if (depth := depth_of(rule)) is not None}
    typed = {rule: (depth,) for rule, depth in own.items() if _names_depth(given[rule])}
    if values.depths is not None and typed:
        raise LocalLearnError(f"the depth of {next(iter(typed))} is given, and --depths too: leave out one of them.")
    if values.depths is not None and not own:
        raise LocalLearnError(f"--depths: there is no depth in {' and '.join(map(str, given))}: leave it out.")
    return {rule: typed.get(rule) or values.depths or DEPTHS for rule in given}


def _given(values: Any) -> dict[Rule, Sequence[str]]:
    """The rules that `--rules` or `--rule` names, and the words that describe each."""
    if values.rules is None:
        arguments, _ = COMMAND.get() or ((), None)
        return {values.rule: arguments}
    if "--rule" in typed_options():
        raise LocalLearnError("--rules names the rules to look at: leave out --rule.")
    if "auto" not in values.rules:
        return {parse_rule(word): [word] for word in values.rules}
    if len(values.rules) > 1:
        raise LocalLearnError("--rules auto looks at all rules: leave out the others.")
    return {rule: [] for rule in RULES}


def _names_depth(words: Iterable[str]) -> bool:
    """Whether words give a depth, as `auglocal(depth=3)` or `--rule.depth` do."""
    return any(re.search(r"\bdepth\b\W*[=:]|\.depth$", word) for word in words)


def _show(result: Plan, title: str) -> None:
    bp = result.baselines[0]
    rows = [
        (
            "*" if one is result.best else "",
            rule_text(one.rule),
            f"{len(one.modules)}" if one not in result.baselines else "",
            one.memory,
            f"{one.micro_batch} x {one.accumulate}" if one.accumulate > 1 else f"{one.micro_batch}",
            format_bytes(one.peak),
            "yes" if one.peak <= result.budget else "no",
            f"{one.seconds / bp.seconds:.2f}",
            f"{one.macs / bp.macs:.2f}",
        )
        for one in sorted((*result.candidates, *result.baselines), key=lambda one: one.peak)
    ]
    columns = ("", "rule", "modules", "memory", "batch", "peak in total", "fits", "time x BP", "step MACs x BP")
    show(f"{title}; budget {format_bytes(result.budget)}; time is predicted", columns, rows, texts=2)


def _plain(one: Candidate) -> dict[str, Any]:
    return dataclasses.asdict(one) | {"rule": rule_text(one.rule), "modules": list(one.modules)}


def _command(values: Any, best: Candidate, shape: Shape) -> str:
    """The command that trains with these settings."""
    _, height, width = shape
    is_other = _data(values, shape) is not None
    options = {
        "--rule": rule_text(best.rule),
        "--modules": list(best.modules),  # a name alone could be read as a number or as an expression
        "--memory": best.memory,
        "--accumulate": best.accumulate if best.accumulate > 1 else None,
        "--data": "DATA" if is_other else None,
        "--image-size": height if is_other and height == width else None,
    }
    return step_command("train", values, options)


def _data(values: Any, shape: Shape) -> str | None:
    """What the images are that the command trains on; None where they are those of the default data set."""
    if (*shape, values.classes) == _DEFAULT_IMAGES:
        return None
    channels, height, width = shape
    pixels = "" if height == width else f" and {height} x {width} pixels"
    of_images = f"{counted(channels, 'channel')}{pixels}"
    return f"DATA: a data set of {counted(values.classes, 'class')}, whose images have {of_images}"
