"""The options of `cost`, `plan` and `simulate` that describe a training step."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

from locallearn._chain.layout import Shape
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._localize import localize
from locallearn._torch.device import channels_last
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.parser import Parser
from locallearn.rules import AugLocal, Rule
from locallearn.training import SGD, FitSettings, OptimizerSettings, make_model

_MOST_PIXELS = 2**44
_MOST_CLASSES = 2**24


def add_step(parser: Parser) -> None:
    """Add these options to a parser."""
    parser.add_argument("--model", type=str, default="resnet32", help="as for train")
    parser.add_argument("--rule", type=Rule, default=AugLocal(), help="the training rule, as for train")
    parser.add_argument("--layers", type=str | list[str] | None, default=None, help="as for train")
    parser.add_argument("--image", type=str, default="3x32x32", help="channels x height x width")
    parser.add_argument("--classes", type=int, default=10, help="number of classes")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--optimizer", type=OptimizerSettings, default=SGD(), help="whose state is counted")
    parser.add_argument("--precision", type=Literal["fp32", "bf16"], default="fp32", help="as for train")
    parser.add_argument("--step", type=Literal["together", "module"], default="together", help="as for train")
    parser.add_argument("--json", action="store_true", help="print all as JSON")


def step_of(values: Any) -> tuple[Shape, FitSettings, str]:
    """The image's shape, the settings of a step and a title, from parsed values."""
    shape = image_shape(values.image)
    for name, value in (("batch", values.batch), ("classes", values.classes)):
        if value < 1:
            raise LocalLearnError(f"--{name} must be at least 1.")
    if values.classes > _MOST_CLASSES:
        raise LocalLearnError(f"--classes {values.classes}: at most {_MOST_CLASSES:,} are possible.")
    if values.batch * prod(shape) > _MOST_PIXELS:
        raise LocalLearnError(f"--batch {values.batch} of {values.image} has more pixels than any memory holds.")
    settings = FitSettings(optimizer=values.optimizer, step=values.step, precision=values.precision)
    return shape, settings, f"{values.model}, batch {values.batch}, {values.image}, {values.precision}"


def localized(values: Any, rule: Rule, shape: Shape, *, modules: int | str | list[str], memory: Memory) -> LocalNet:
    """The network of parsed values, localized for a rule, with channels last as `train` runs it."""
    model = make_model(values.model, classes=values.classes, image_shape=shape)
    net = localize(model, rule, modules=modules, layers=values.layers, memory=memory, input_shape=shape)
    return channels_last(net)


def image_shape(text: str) -> Shape:
    """Channels, height and width from a text such as 3x32x32."""
    try:
        channels, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise LocalLearnError(f"--image {text!r}: write channels, height and width, as in 3x32x32.") from error
    if min(channels, height, width) < 1:
        raise LocalLearnError("--image must be at least 1.")
    return channels, height, width
