"""Training steps through a pipeline of processes, and the same steps in one process."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import shared_steps
import torch
import torch.distributed as dist
from shared_steps import localized, model
from torch import Tensor

import locallearn as ll
from locallearn import parallel
from locallearn._engine.neighbours import Neighbours
from locallearn._engine.recompute_plan import Memory
from locallearn._engine.step import Step
from locallearn._nn.ema import EmaCopy
from locallearn.cost import LiveBytes
from locallearn.parallel.assignment import Assignment, ended_at_borders, owners
from locallearn.parallel.followed import ema_copies
from locallearn.parallel.part import NetPart
from locallearn.training import ModuleStepper, Stepper

RULES: dict[str, ll.Rule] = shared_steps.RULES | {
    "MAN paper": ll.MAN(ll.DGL(hidden=1), fidelity="paper"),
    "LAM": ll.LAM(),
}
"""Rules that differ in what travels between processes."""

VARIANTS: dict[str, ll.Rule] = {
    "Checkpoint": ll.Checkpoint(),
    "PredSim": ll.PredSim(),
    "InfoPro contrastive": ll.InfoPro(task_loss="contrastive"),
    "PFF": ll.PFF(ll.InfoPro()),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff")),
    "HiLo of three": ll.HiLo(ll.Pooling(), span=3, fidelity="paper"),
    "MANPP": ll.MANPP(ll.Pooling()),
    "LAM of InfoPro": ll.LAM(ll.InfoPro()),
    "LAM paper": ll.LAM(length=4, fidelity="paper"),
    "InfoProLoss of MLM": ll.InfoProLoss(ll.MLM(ll.Pooling())),
}
IN_THREE = VARIANTS | {name: RULES[name] for name in ("BP", "HiLo", "MAN paper", "LAM", "MLAAN")}
"""For the slow test of three processes."""

ENDED = ll.HiLo(ll.Pooling(), fidelity="paper")
"""A rule whose cascades are ended where processes meet."""

PAGE = Path(__file__).parents[2] / "docs" / "several-processes.md"

PARTS = (2, 3)

MEASURED = (("DGL", 1), ("DGL", 4), ("AugLocal", 1), ("MAN", 1), ("HiLo", 1), ("HiLo", 4))
"""Rules and numbers of micro-batches whose peak memory is compared with its prediction."""


def divided(
    rule: ll.Rule, counts: tuple[int, ...] = PARTS, memory: Memory = "fast", **options: Any
) -> parallel.ModulePart:
    """This process's part of such a network; the last process has the modules that are left."""
    net = localized(rule, memory=memory)
    *first, _ = counts
    return parallel.modules(net, assignment=[*first, len(net.partition) - sum(first)], **options)


def batch(seed: int, images: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 12, 12, generator=draw), torch.arange(images) % 4


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def trained(net: ll.LocalNet, *, given: Callable[[int], Any] = batch, steps: int = 4) -> dict[str, Any]:
    """Losses, state and logits after some steps, with an inference between; the last batch is smaller."""
    optimizer = sgd(net.parameters())
    losses = []
    for step in range(steps):
        images, labels = given(step)
        few = slice(None) if images is None or step < steps - 1 else slice(3)
        losses.append(net.backward(None if images is None else images[few], None if labels is None else labels[few]))
        optimizer.step()
        optimizer.zero_grad()
        if step == 1:
            net.eval()(batch(9, 2)[0])
            net.train()
    return {"losses": torch.stack(losses), "state": net.state_dict(), "logits": net.eval()(batch(9, 2)[0])}


def stepped_by_module(net: ll.LocalNet) -> dict[str, Any]:
    """Steps of two micro-batches each, in which every module is stepped when its gradients are complete."""
    stepper = ModuleStepper(net, sgd, clip_module_norm=0.1)
    completed: list[int] = []

    def on_complete(module: int) -> None:
        completed.append(module)
        stepper.on_complete(module)

    for step in range(3):
        images, labels = batch(step)
        net.backward(images[:4], labels[:4], scale=2 / 3, final=False, on_complete=on_complete)
        net.backward(images[4:], labels[4:], scale=1 / 3, on_complete=on_complete)
        stepper.finish()
    return {"completed": completed, "state": net.state_dict()}


def in_half_precision(net: ll.LocalNet) -> dict[str, Any]:
    with torch.autocast("cpu", torch.bfloat16):
        return trained(net)


def partly_frozen(net: ll.LocalNet) -> dict[str, Any]:
    """The first process has nothing to train; the second one has a frozen module."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.split(".")[1] not in ("0", "1", "3", "4", "6", "7"))
    return trained(net) | {"frozen": net.model.state_dict()}


def resumed(net: ll.LocalNet) -> dict[str, Any]:
    """A network that goes on from the whole state of another."""
    state = trained(localized(RULES["MAN"]))["state"]
    net.load_state_dict(state)
    return trained(net, steps=2)


def without_cascades(net: ll.LocalNet) -> ll.LocalNet:
    """What `end_cascades` trains, in one process."""
    net.objectives = tuple(ended_at_borders(net.objectives, Assignment(PARTS)))
    return net


def with_stale_copies(net: ll.LocalNet, counts: tuple[int, ...]) -> ll.LocalNet:
    """What `stale_copies` trains, in one process."""
    assignment = Assignment(counts)
    for objective in net.objectives:
        for ema in ema_copies(objective.auxiliary):
            source = next(i for i, module in enumerate(net.local_modules) if ema.sources[0] is module.layers[0])
            age = assignment.rank_of(source) - assignment.rank_of(objective.last) - 1
            ema.update = partial(_move_late, ema, max(age, 0), [])
    return net


def _move_late(ema: EmaCopy, age: int, history: list[dict[str, Tensor]]) -> None:
    history.append({name: p.detach().clone() for name, p in ema.sources[0].named_parameters()})
    ema.move_towards(history[max(0, len(history) - 1 - age)])


def first_gives(rank: int) -> Callable[[int], Any]:
    return batch if rank == 0 else lambda step: (None, None)


LEANER: tuple[Memory, ...] = ("lean", "least")

ALONE: dict[str, Callable[[], dict[str, Any]]] = {
    **{name: lambda rule=rule: trained(localized(rule)) for name, rule in RULES.items()},
    "by module": lambda: stepped_by_module(localized(RULES["MLAAN"])),
    **{name: lambda memory=name: in_half_precision(localized(RULES["AugLocal"], memory=memory)) for name in LEANER},
    "frozen": lambda: partly_frozen(localized(RULES["HiLo"])),
    "resumed": lambda: resumed(localized(RULES["MAN"])),
    "labels sent": lambda: trained(localized(RULES["DGL"])),
    "images sent": lambda: trained(localized(RULES["InfoPro"])),
    "cascades ended": lambda: trained(without_cascades(localized(ENDED))),
}
"""What one process does, by the name of the same in two."""


def each_pipeline(rank: int) -> dict[str, Any]:
    """What a process of two has after the same steps."""
    torch.manual_seed(rank)
    return {
        **{name: trained(divided(rule)) for name, rule in RULES.items()},
        "by module": stepped_by_module(divided(RULES["MLAAN"])),
        **{
            name: in_half_precision(parallel.modules(localized(RULES["AugLocal"], memory=name), assignment=(1, 3)))
            for name in LEANER
        },
        "frozen": partly_frozen(divided(RULES["HiLo"])),
        "resumed": resumed(divided(RULES["MAN"])),
        "labels sent": trained(divided(RULES["DGL"], send_labels=True), given=first_gives(rank)),
        "images sent": trained(divided(RULES["InfoPro"], send_labels=True), given=first_gives(rank)),
        "cascades ended": trained(divided(ENDED, end_cascades=True)),
        "asynchronous": asynchronous(rank),
        "part": what_it_holds(),
        "peaks": peaks(),
        "refused": refused(rank),
    }


def growing_batch(step: int) -> tuple[Tensor, Tensor]:
    """A batch that its number of images tells from the others."""
    return batch(step, 4 + step)


def asynchronous(rank: int) -> dict[str, Any]:
    """Steps out of a buffer of two batches: the first process makes five while the second one makes one."""
    part = divided(RULES["InfoPro"], replay_buffer=2)
    optimizer = sgd(part.parameters())
    order: list[int] = []
    make_step = part.step

    def recorded_step(images: Tensor, labels: Tensor, **settings: Any) -> Step:
        order.append(len(labels) - 4)
        return make_step(images, labels, **settings)

    part.step = recorded_step

    def train(steps: Iterable[int]) -> None:
        for step in steps:
            part.backward(*(growing_batch(step) if rank == 0 else (None, None)))
            optimizer.step()
            optimizer.zero_grad()

    def look() -> None:
        part.eval()(batch(9, 2)[0])
        part.train()

    look()
    train(range(5) if rank == 0 else range(1))
    dist.barrier()
    train(() if rank == 0 else range(5))
    look()
    train([5])
    return {"state": part.state_dict(), "order": order, "staleness": part.staleness}


def out_of_order(order: list[int]) -> dict[str, Tensor]:
    """What `asynchronous` trains, in one process, where the second part takes the batches in this order."""
    net, assignment = localized(RULES["InfoPro"]), Assignment(PARTS)
    owner = owners(net, assignment)
    first, second = (NetPart(net, assignment, rank, owner) for rank in range(2))
    optimizers = {part: sgd(part.parameters()) for part in (first, second)}
    passed_on: list[Tensor] = []

    class Next(Neighbours):
        def passed_on(self, features: Tensor) -> None:
            passed_on.append(features.clone())

    def train(part: NetPart, step: int, **settings: Any) -> None:
        part.step(*growing_batch(step), **settings).run()
        optimizers[part].step()
        optimizers[part].zero_grad()

    for step in range(6):
        train(first, step, neighbours=Next())
    for step in order:
        train(second, step, features=passed_on[step])
    return net.state_dict()


def what_it_holds() -> dict[str, Any]:
    """The names of a part's tensors, and how many of the network's tensors are still in memory."""
    net = localized(RULES["MAN"])
    tensors = [weakref.ref(tensor) for tensor in (*net.parameters(), *net.buffers())]
    part = parallel.modules(net, assignment=PARTS)
    del net
    gc.collect()
    own = [*part.parameters(), *part.buffers()]
    by_module = [p for module in part.part for p in part.parameters_of(module)]
    logits = part.logits(batch(0)[0])
    loss = part.backward(*batch(0))
    return {
        "alive": sum(tensor() is not None for tensor in tensors),
        "own": len(own),
        "by module": {id(p) for p in by_module} == {id(p) for p in part.parameters()},
        "elsewhere": [part.parameters_of(module) for module in range(5) if module not in part.part],
        "objectives": [(o.first, o.last) for o in part.objectives],
        "losses": len(loss),
        "logits": len(logits),
        "sent": part.sent_bytes,
        "names": set(part.own_state()),
    }


def peaks() -> dict[tuple[str, int], int]:
    """The peak of all live tensors of a process, by rule and number of micro-batches."""
    return {(name, count): _peak(divided(RULES[name]), count) for name, count in MEASURED}


def _peak(part: parallel.ModulePart, count: int) -> int:
    stepper = Stepper(part, sgd)
    images, labels = batch(0, 64)
    known = [*part.parameters(), *part.buffers(), images, labels]
    with LiveBytes(known=known, parameters=part.parameters()) as live:
        for _ in range(3):
            for number, (few, own) in enumerate(zip(images.chunk(count), labels.chunk(count), strict=True)):
                final = number == count - 1
                part.backward(few, own, final=final, on_complete=stepper.on_complete if final else None)
            stepper.finish()
    return live.peak + sum(tensor.nbytes for tensor in known)


def refused(rank: int) -> dict[str, str]:
    """What a part, and what other processes refuse."""
    part = divided(RULES["DGL"])
    attempts: dict[str, Callable[[], object]] = {
        "clip": lambda: Stepper(part, sgd, clip_norm=1.0),
        "twice": lambda: parallel.modules(part),
        "images": lambda: part.backward(None, batch(0)[1]),
        "counts": lambda: parallel.modules(localized(RULES["DGL"]), assignment=(4, 4)),
        "settings": lambda: parallel.modules(localized(RULES["DGL"]), assignment=(2 + rank, 3 - rank)),
        "options": lambda: parallel.modules(localized(RULES["DGL"]), send_labels=rank == 1),
        "untrained": lambda: parallel.modules(localized(RULES["HiLo"]), assignment=(1, 4), end_cascades=True),
        "asynchronous cascades": lambda: divided(RULES["HiLo"], replay_buffer=2),
        "asynchronous copies": lambda: divided(RULES["MAN"], replay_buffer=2),
        "no buffer": lambda: divided(RULES["DGL"], replay_buffer=0),
        "asynchronous batches": lambda: parallel.data(divided(RULES["DGL"], replay_buffer=1)),
        "too many": lambda: parallel.modules(ll.localize(model(), ll.BP(), modules=1, input_shape=(3, 12, 12))),
        "other batch": lambda: part.backward(*batch(0, 6 - rank)),
        "other method": lambda: part(batch(0)[0]) if rank else part.backward(*batch(0)),
    }
    return {name: _refusal(attempt) for name, attempt in attempts.items()}


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except ll.LocalLearnError as error:
        return str(error)
    return "nothing"


def in_three(rank: int) -> dict[str, Any]:
    """Parts of three processes, whose rules reach over two borders."""
    results: dict[str, Any] = {name: trained(divided(rule, (1, 1, 3))) for name, rule in IN_THREE.items()}
    results["stale"] = trained(divided(RULES["LAM"], (1, 1, 3), stale_copies=True), steps=8)
    results["page"] = len(by_the_page().own_state())
    return results


def by_the_page() -> parallel.ModulePart:
    """What the loop of docs/several-processes.md trains."""
    names = _code_of_page(1)
    names["dist"] = SimpleNamespace(init_process_group=lambda backend: None)
    return names["main"]([(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))])


def _code_of_page(block: int) -> dict[str, Any]:
    """The names in a Python block of the page."""
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[block], names)
    return names


def by_data_and_modules(rank: int) -> dict[str, Any]:
    """Two pipelines of two processes that share each batch, as rows of a mesh of devices."""
    part_of = _code_of_page(2)["part_of"]
    half = partial(_half, rank % 2)
    return {
        name: stepped(part_of(localized(RULES[name]).double().eval()), half)
        for name in ("DGL", "HiLo", "MAN", "MLAAN", "BP")
    }


def stepped(net: ll.LocalNet, given: Callable[[int], Any]) -> dict[str, Any]:
    """Losses and state after two steps in evaluation mode."""
    optimizer = sgd(net.parameters())
    losses = []
    for step in range(2):
        losses.append(net.backward(*given(step)))
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": torch.stack(losses), "state": net.state_dict()}


def double_batch(step: int) -> tuple[Tensor, Tensor]:
    images, labels = batch(step)
    return images.double(), labels


def _half(index: int, step: int) -> tuple[Tensor, Tensor]:
    images, labels = double_batch(step)
    return images[index::2], labels[index::2]


def localize_all() -> None:
    """Make the networks that `both` copies."""
    for rule in (*RULES.values(), ENDED):
        localized(rule)
    for memory in LEANER:
        localized(RULES["AugLocal"], memory=memory)


def both(rank: int) -> dict[str, Any]:
    """What a process of two does in `make test`: first as one that shares batches, then as one of a pipeline."""
    return {"data": shared_steps.each_rule(rank), "modules": each_pipeline(rank)}
