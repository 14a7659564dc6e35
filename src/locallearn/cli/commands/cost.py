"""`locallearn cost`: what training costs, without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from locallearn._engine.recompute_plan import Memory
from locallearn._figures.style import refuse_picture
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import mebibytes, say, show, show_json, work
from locallearn.cli.dry_run import show_processes
from locallearn.cli.parser import Parser
from locallearn.cli.step_options import add_step, localized, step_of
from locallearn.cost import Cost, ModuleBytes, bytes_by_module, cost, draw_bytes, warning_of
from locallearn.parallel import predict_modules
from locallearn.rules import BP, Checkpoint
from locallearn.training.processes.predicted import rows_of

HELP = """Parameters, multiply-accumulates and peak memory of a training step, beside BP and checkpointing.

Nothing is trained and no GPU is needed: the step runs on fake tensors, which have shapes but no data.

examples:
  locallearn cost --model resnet110 --rule auglocal --rule.depth 2 --batch 1024
  locallearn cost --model resnet32 --rule dgl --image 3x96x96 --precision bf16 --by-module
  locallearn cost --model resnet110 --rule auglocal --modules peak:8 --picture bytes.png
  locallearn cost --model resnet110 --rule dgl --processes 2    # each process with its part of the modules
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn cost [options]")
    add_step(parser)
    parser.add_argument("--modules", type=int | str | list[str], default="all", help="as for train")
    parser.add_argument("--memory", type=Memory, default="fast", help="as for train; for the rule alone")
    parser.add_argument("--accumulate", type=int, default=1, help="as for train; for all three")
    parser.add_argument("--by_module", action="store_true", help="also MACs and bytes of each local module")
    parser.add_argument("--processes", type=int, default=1, help="also each of so many, as of train --parallel modules")
    parser.add_argument("--picture", type=Path | None, default=None, help="draw bytes by module: a .png, .svg ...")
    return parser


def run(config: Any) -> None:
    """Find and print the costs."""
    values = parser().instantiate(config)
    shape, settings, title = step_of(values)
    settings = dataclasses.replace(settings, accumulate=values.accumulate)
    if values.accumulate > values.batch:
        raise LocalLearnError(
            f"--accumulate {values.accumulate}: a batch of {values.batch} has no more parts than images."
        )
    if values.accumulate > 1:
        title += f", {values.accumulate} micro-batches"
    costs: dict[str, Cost] = {}
    rows: list[ModuleBytes] = []
    processes: list[dict[str, Any]] = []
    if values.picture is not None:
        refuse_picture(values.picture)
    if values.processes < 1:
        raise LocalLearnError(f"processes={values.processes} must be at least 1.")
    baselines = {str(rule): rule for rule in (BP(), Checkpoint())}
    asked = str(values.rule)
    if asked in baselines and values.memory != "fast":
        asked += f", {values.memory}"  # beside the row that all others are compared to
    rules = baselines | {asked: values.rule}
    with work() as report:
        for name, rule in rules.items():
            report(f"localizing {values.model} for {rule}")
            modules, memory = (values.modules, values.memory) if name == asked else ("all", "fast")
            net = localized(values, rule, shape, modules=modules, memory=memory)
            report(f"counting a step of {rule}")
            costs[name] = cost(net, batch=values.batch, **settings.step_options)
            if name == asked and (values.by_module or values.picture is not None):
                report(f"counting bytes by module of {rule}")
                rows = bytes_by_module(net, -(-values.batch // values.accumulate), autocast=settings.autocast)
            if name == asked and values.processes > 1:
                report(f"counting a step of {rule} in {values.processes} processes")
                processes = rows_of(predict_modules(net, values.processes, values.batch, **settings.step_options))
    if values.picture is not None:
        draw_bytes(rows, values.picture, title=f"{values.rule}: {title}")
        say(f"picture: {values.picture}")
    if values.json:
        plain = {name: dataclasses.asdict(cost) | {"forward_macs": cost.forward_macs} for name, cost in costs.items()}
        if rows:
            plain[asked]["module_bytes"] = [dataclasses.asdict(row) for row in rows]
        if processes:
            plain[asked]["processes"] = processes
        show_json(plain)
        return
    _show_costs(title, costs)
    if sentence := warning_of(values.rule, costs[asked].peak, costs["BP"].peak):
        say(sentence)
    if values.by_module:
        _show_modules(costs[asked])
        _show_bytes(rows)
    if processes:
        show_processes(f"{values.rule} in {values.processes} processes; time as a share of the slowest", processes)


def _show_costs(title: str, costs: dict[str, Cost]) -> None:
    bp = costs["BP"]
    rows = [
        (
            name,
            f"{cost.backbone_parameters:,}",
            f"{cost.auxiliary_parameters:,}",
            f"{cost.forward_macs / 1e9:.4f} G",
            f"{cost.step_macs / bp.step_macs:.2f}",
            mebibytes(cost.peak.activations),
            f"{cost.peak.activations / cost.batch / 2**20:.2f} MiB",
            f"{cost.peak.activations / bp.peak.activations:.2f}",
            mebibytes(cost.peak.total),
            f"{cost.peak.total / bp.peak.total:.2f}",
        )
        for name, cost in costs.items()
    ]
    columns = ("rule", "backbone", "auxiliary", "MACs / image", "step MACs x BP")
    memory = ("peak activations", "per image", "x BP", "peak in total", "x BP")
    show(title, (*columns, *memory), rows)


def _show_modules(cost: Cost) -> None:
    rows = [
        (f"{index}", name, f"{macs.backbone:,}", f"{macs.task_heads:,}", f"{macs.others:,}")
        for index, (name, macs) in enumerate(zip(cost.module_names, cost.module_macs, strict=True))
    ]
    show("MACs of one image forward", ("module", "layers", "backbone", "task head", "others"), rows, texts=2)


def _show_bytes(rows: list[ModuleBytes]) -> None:
    table = [
        (
            f"{row.first}" if row.first == row.last else f"{row.first} ... {row.last}",
            *map(mebibytes, (row.before, row.saved, row.auxiliary, row.backward, row.peak, row.weights, row.gradients)),
        )
        for row in rows
    ]
    columns = ("module", "alive before", "saved", "auxiliary adds", "backward adds", "peak", "weights", "gradients")
    show("Bytes while each module is trained; weights and gradients include its auxiliary networks", columns, table)
