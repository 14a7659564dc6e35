"""`locallearn cost`: what training costs, without training."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from locallearn._economy import Memory
from locallearn._errors import LocalLearnError
from locallearn._localize import localize
from locallearn.cli._console import mebibytes, show, show_json
from locallearn.cli._parser import Parser
from locallearn.cost import Cost, cost
from locallearn.rules import BP, AugLocal, Checkpoint, Rule
from locallearn.training import SGD, FitSettings, OptimizerSettings, make_model

HELP = """Parameters, multiply-accumulates and peak memory of a training step, beside BP and checkpointing.

Nothing is trained and no GPU is needed: the step runs on tensors without data, in seconds.

examples:
  locallearn cost --model resnet110 --rule auglocal --rule.depth 2 --batch 1024
  locallearn cost --model resnet32 --rule dgl --image 3x96x96 --precision bf16 --by-module
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn cost [options]")
    parser.add_argument("--model", type=str, default="resnet32", help="as for train")
    parser.add_argument(
        "--rule", type=Rule, default=AugLocal(), help="the training rule; --with wraps it, as for train"
    )
    parser.add_argument("--modules", type=int | str | list[str], default="all", help="as for train")
    parser.add_argument("--memory", type=Memory, default="fast", help="as for train; for the rule alone")
    parser.add_argument("--layers", type=list[str] | None, default=None, help="as for train")
    parser.add_argument("--image", type=str, default="3x32x32", help="channels x height x width")
    parser.add_argument("--classes", type=int, default=10, help="number of classes")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--optimizer", type=OptimizerSettings, default=SGD(), help="for the bytes of its state")
    parser.add_argument("--precision", type=Literal["fp32", "bf16"], default="fp32", help="as for train")
    parser.add_argument("--step", type=Literal["together", "module"], default="together", help="as for train")
    parser.add_argument("--by_module", action="store_true", help="also show each local module")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    return parser


def run(config: Any) -> None:
    """Find and print the costs."""
    values = parser().instantiate(config)
    try:
        channels, height, width = (int(part) for part in values.image.lower().split("x"))
    except ValueError:
        raise LocalLearnError(f"--image {values.image!r}: write channels, height and width, as in 3x32x32.") from None
    for name, value in (("batch", values.batch), ("classes", values.classes), ("image", min(channels, height, width))):
        if value < 1:
            raise LocalLearnError(f"--{name} must be at least 1.")
    settings = FitSettings(optimizer=values.optimizer, step=values.step, precision=values.precision)
    costs: dict[str, Cost] = {}
    for rule in (BP(), Checkpoint(), values.rule):
        shape = (channels, height, width)
        model = make_model(values.model, classes=values.classes, image_shape=shape)
        memory = values.memory if rule is values.rule else "fast"
        net = localize(model, rule, modules=values.modules, layers=values.layers, memory=memory, input_shape=shape)
        net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        costs[str(rule)] = cost(net, batch=values.batch, make_stepper=settings.make_stepper, autocast=settings.autocast)
    if values.json:
        show_json(
            {name: dataclasses.asdict(found) | {"forward_macs": found.forward_macs} for name, found in costs.items()}
        )
        return
    _show_costs(f"{values.model}, batch {values.batch}, {values.image}, {values.precision}", costs)
    if values.by_module:
        _show_modules(costs[str(values.rule)])


def _show_costs(title: str, costs: dict[str, Cost]) -> None:
    bp = costs["BP"]
    rows = [
        (
            name,
            f"{found.backbone_parameters:,}",
            f"{found.auxiliary_parameters:,}",
            f"{found.forward_macs / 1e9:.4f} G",
            f"{found.step_macs / bp.step_macs:.2f}",
            mebibytes(found.peak.activations),
            f"{found.peak.activations / found.batch / 2**20:.2f} MiB",
            f"{found.peak.activations / bp.peak.activations:.2f}",
            mebibytes(found.peak.total),
            f"{found.peak.total / bp.peak.total:.2f}",
        )
        for name, found in costs.items()
    ]
    columns = ("rule", "backbone", "auxiliary", "MACs / image", "step MACs x BP")
    memory = ("peak activations", "per image", "x BP", "peak in total", "x BP")
    show(title, (*columns, *memory), rows)


def _show_modules(found: Cost) -> None:
    rows = [
        (f"{index}", name, f"{macs.backbone:,}", f"{macs.task_heads:,}", f"{macs.others:,}")
        for index, (name, macs) in enumerate(zip(found.module_names, found.module_macs, strict=True))
    ]
    show("MACs of one image forward", ("module", "layers", "backbone", "task head", "others"), rows, texts=2)
