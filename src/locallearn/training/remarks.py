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
    """Say so where all objectives of a local rule end in the network's classifier: one module, or one cascade."""
    count = len(net.partition)
    if isinstance(rule, BP | Checkpoint) or any(objective.last < count - 1 for objective in net.objectives):
        return
    cause, remedy = f"none of {count} modules has an auxiliary network of its own", "more modules, or a smaller span"
    if count == 1:
        cause, remedy = "the network is a single module", "more modules"
    say(f"{rule} trains end to end, as BP does: {cause}. Ask for {remedy}.")


def remark_on_memory(
    net: LocalNet, settings: TrainSettings, peak: PeakMemory, batch: int, say: Callable[[str], None]
) -> None:
    """Say so where the step takes more memory than backpropagation, which large auxiliary networks alone can cause."""
    if number_of_parameters(net.auxiliary) <= number_of_parameters(net.model):
        return
    bp = net_of(net.model, net.chain, BP(), net.partition, "fast")
    if sentence := warning_of(settings.rule, peak, peak_memory(bp, batch, **settings.step_options)):
        say(sentence)
