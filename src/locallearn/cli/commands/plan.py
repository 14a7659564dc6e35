"""`locallearn plan`: settings that fit a budget of memory, at the least time."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from locallearn._utils.byte_size import format_bytes, parse_bytes
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import say, show, show_json, work
from locallearn.cli.parser import Parser, parse_rule, typed_options
from locallearn.cli.step_options import add_step, step_of
from locallearn.cost import Candidate, Plan, draw_plan, plan, plan_rules, warning_of
from locallearn.cost.planner import DEPTHS, RULES
from locallearn.cost.warning import advice_of
from locallearn.rules import Rule
from locallearn.training import SGD, OptimizerSettings, make_model, plain, rule_text

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
        "--depths", nargs="+", type=int, default=list(DEPTHS), help="auxiliary depths to try, for rules that have one"
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
    rules = _rules(values.rules)
    find = partial(plan, rule=values.rule) if rules is None else partial(plan_rules, rules=rules)
    with work() as report:
        result = find(
            make_model(values.model, classes=values.classes, image_shape=shape),
            input_shape=shape,
            batch=values.batch,
            budget=budget,
            depths=values.depths,
            layers=values.layers,
            make_stepper=settings.make_stepper,
            autocast=settings.autocast,
            say=report,
        )
    command, advice = _command(values, result.best), advice_of(result)
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
                "advice": advice,
            }
        )
        return
    _show(result, title)
    say(advice)
    if sentence := warning_of(result.best.rule, result.best.peak, result.baselines[0].peak):
        say(sentence)
    say(f"the fastest that fits: {command}")


def _rules(words: Sequence[str] | None) -> Sequence[Rule] | None:
    """The rules that `--rules` names, or None for the one of `--rule`."""
    if words is None:
        return None
    if "--rule" in typed_options():
        raise LocalLearnError("--rules names the rules to look at: leave out --rule.")
    if "auto" not in words:
        return [parse_rule(word) for word in words]
    if len(words) > 1:
        raise LocalLearnError("--rules auto looks at all rules: leave out the others.")
    return RULES


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


def _quoted(layers: str | list[str] | None) -> str | None:
    """Layers as an option for a shell."""
    return None if layers is None else shlex.quote(layers if isinstance(layers, str) else f"[{', '.join(layers)}]")


def _optimizer(settings: OptimizerSettings) -> dict[str, Any]:
    """The options of an optimizer other than the default."""
    if settings == SGD():
        return {}
    chosen = plain(settings)
    given = {
        f"--optimizer.{setting.name}": shlex.quote(json.dumps(chosen["init_args"][setting.name]))
        for setting in dataclasses.fields(settings)
        if getattr(settings, setting.name) != setting.default
    }
    return {"--optimizer": chosen["class_path"], **given}


def _command(values: Any, best: Candidate) -> str:
    """The command that trains with these settings."""
    modules = "|".join(best.modules)
    options = {
        "--model": values.model,
        "--rule": f"'{rule_text(best.rule)}'",
        "--modules": f"'{modules}'",
        "--layers": _quoted(values.layers),
        "--memory": best.memory,
        "--batch": values.batch,
        "--accumulate": best.accumulate if best.accumulate > 1 else None,
        "--precision": values.precision if values.precision != "fp32" else None,
        "--step": values.step if values.step != "together" else None,
        **_optimizer(values.optimizer),
    }
    given = (f"{name} {value}" for name, value in options.items() if value is not None)
    return f"locallearn train {' '.join(given)}"
