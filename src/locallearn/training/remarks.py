"""What a run says before it trains, where its local rule has no advantage over backpropagation."""

from __future__ import annotations

from collections.abc import Callable

from locallearn._engine.local_net import LocalNet
from locallearn._localize import net_of
from locallearn.cost import PeakMemory, peak_memory, warning_of
from locallearn.rules import BP, Checkpoint, Rule
from locallearn.training.result import number_of_parameters
from locallearn.training.settings.train import TrainSettings


def remark_on_modules(net: LocalNet, rule: Rule, say: Callable[[str], None]) -> None:
    """Say so where the loss of the network's classifier is the only one: one module, or one cascade over all."""
    last = len(net.partition) - 1
    if not isinstance(rule, BP | Checkpoint) and all(objective.last == last for objective in net.objectives):
        say(
            f"{rule} trains end to end, as BP does: its only loss is the classifier's. Ask for more modules, a smaller"
            " span or shallower auxiliary networks."
        )


def remark_on_memory(
    net: LocalNet, settings: TrainSettings, peak: PeakMemory, batch: int, say: Callable[[str], None]
) -> None:
    """Say so where the step takes more memory than backpropagation, which large auxiliary networks alone can cause."""
    if number_of_parameters(net.auxiliary) <= number_of_parameters(net.model):
        return
    bp = net_of(net.model, net.chain, BP(), net.partition, "fast")
    if sentence := warning_of(settings.rule, peak, peak_memory(bp, batch, **settings.step_options)):
        say(sentence)
