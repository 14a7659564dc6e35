"""All checks, and one call that runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import nn

from locallearn._chain.layout import Shape
from locallearn._objectives.auxiliary import Loss
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import DGL, Rule
from locallearn.testing import step_checks as step, training_checks as training
from locallearn.testing.case import Case
from locallearn.testing.no_dropout import without_dropout

_STEP_AND_TRAINING = (
    step.network_is_left_alone,
    step.chain_computes_what_the_network_computes,
    step.one_module_is_backpropagation,
    step.gradients_are_isolated,
    step.gradients_are_those_of_each_objective,
    step.accumulation_adds_up,
    step.auxiliary_networks_are_told_of_each_step,
    step.scale_multiplies_gradients,
    step.frozen_parts_stay,
    step.nan_is_named_and_nothing_is_stepped,
    training.peak_is_below_one_summed_backward,
    training.memory_does_not_grow,
    training.resuming_is_exact,
    training.stepping_each_module_at_once_changes_nothing,
    training.any_image_and_batch_size_trains,
    training.mixed_precision_trains,
    training.compiled_trains,
    training.loss_falls_on_digits,
)
CHECKS = tuple(map(without_dropout, _STEP_AND_TRAINING))
"""The checks that every rule and every network passes, each a function of a `Case`; dropout is off in them."""


def check_rule(rule: Rule, loss: Loss = F.cross_entropy) -> None:
    """Run all checks of a rule on small networks; takes about 20 seconds on one core.

    Args:
        rule: the rule.
        loss: the task's loss, which takes class indices.

    Raises:
        AssertionError: names the first check that fails, and says why.
    """
    _check(Case(rule=rule, loss=loss), f"{rule}, ")


def check_network(
    make: Callable[[], nn.Module], image_shape: Shape, rule: Rule | None = None, layers: tuple[str, ...] | None = None
) -> None:
    """Run all checks of a network under a rule.

    Args:
        make: makes the network, always with the same weights. Dropout is off in the checks; switch off whatever else is
            random in its forward pass.
        image_shape: channels, height, width of one image; small images are enough.
        rule: `DGL()` by default.
        layers: as for `localize`.

    Raises:
        AssertionError: names the first check that fails, and says why.
    """
    _check(Case(make=make, image_shape=image_shape, rule=rule or DGL(), layers=layers))


def _check(case: Case, prefix: str = "") -> None:
    for check in CHECKS:
        try:
            check(case)
        except (AssertionError, LocalLearnError) as error:
            raise AssertionError(f"{prefix}{check.__name__}: {error}") from error
