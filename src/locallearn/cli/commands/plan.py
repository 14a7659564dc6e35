"""`locallearn plan`: settings that fit a budget of memory, at the least time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from locallearn._utils.byte_size import format_bytes, parse_bytes
from locallearn.cli.console import say, show, show_json, work
from locallearn.cli.parser import Parser
from locallearn.cli.step_options import add_step, step_of
from locallearn.cost import Candidate, Plan, draw_plan, plan, warning_of
from locallearn.cost.planner import DEPTHS
from locallearn.training import make_model, rule_text

HELP = """Find the partition, auxiliary depth and memory setting whose step fits, at the least time.

Nothing is trained and no GPU is needed. The peak counts everything: parameters, gradients, optimizer state, EMA copies,
batch and activations. Where nothing fits otherwise, the plan splits the batch into micro-batches (--accumulate).

examples:
  locallearn plan --model resnet110 --rule auglocal --batch 1024 --memory 1GiB
  locallearn plan --model resnet32 --rule dgl --batch 256 --memory 60MiB --plot plan.png
  locallearn plan --model resnet110 --rule auglocal --depths 4 --batch 512 --memory 500MB --json
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn plan --memory SIZE [options]")
    parser.add_argument("--memory", type=str, required=True, help="the budget: 1GiB, 500MiB, 1.5GB ...")
    add_step(parser)
    parser.add_argument(
        "--depths", nargs="+", type=int, default=list(DEPTHS), help="auxiliary depths to try, for rules that have one"
    )
    parser.add_argument("--plot", type=Path | None, default=None, help="draw memory and time: a .png, .svg ...")
    return parser


def run(config: Any) -> None:
    """Find and print the plan."""
    values = parser().instantiate(config)
    budget = parse_bytes(values.memory)
    shape, settings, title = step_of(values)
    with work() as report:
        result = plan(
            make_model(values.model, classes=values.classes, image_shape=shape),
            values.rule,
            input_shape=shape,
            batch=values.batch,
            budget=budget,
            depths=values.depths,
            layers=values.layers,
            make_stepper=settings.make_stepper,
            autocast=settings.autocast,
            say=report,
        )
    command = _command(values, result.best)
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
                "command": command,
            }
        )
        return
    _show(result, title)
    bp = result.baselines[0]
    if bp.peak <= budget:
        say(f"backpropagation fits too, with {format_bytes(bp.peak)}")
    if sentence := warning_of(result.best.rule, result.best.peak, bp.peak):
        say(sentence)
    say(f"the fastest that fits: {command}")


def _show(result: Plan, title: str) -> None:
    bp = result.baselines[0]
    rows = [
        (
            "*" if one is result.best else "",
            rule_text(one.rule),
            f"{len(one.modules)}" if one not in result.baselines else "",
            one.memory if one not in result.baselines else "",
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


def _command(values: Any, best: Candidate) -> str:
    """The command that trains with these settings."""
    modules = "|".join(best.modules)
    options = {
        "--model": values.model,
        "--rule": f"'{rule_text(best.rule)}'",
        "--modules": f"'{modules}'",
        "--memory": best.memory,
        "--batch": values.batch,
        "--accumulate": best.accumulate if best.accumulate > 1 else None,
        "--precision": values.precision if values.precision != "fp32" else None,
        "--step": values.step if values.step != "together" else None,
    }
    given = (f"{name} {value}" for name, value in options.items() if value is not None)
    return f"locallearn train {' '.join(given)}"
