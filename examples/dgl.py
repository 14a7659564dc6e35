"""DGL (Belilovsky et al., ICML 2020): modules that are updated without waiting for those after them.

Each module steps as soon as its own gradient is complete, before the next module has run backward. The weights are
those of one update at the end of the step: nothing in a module's gradient depends on later modules.

python examples/dgl.py
"""

from pathlib import Path

import torch

import locallearn as ll
from common import BATCH, localized, options, report, train
from locallearn.data import Feed, digits

given = options(__doc__)

together = localized(ll.DGL())
train(together, given)
report("one step after the last backward", together)

decoupled = localized(ll.DGL())
optimizers = [torch.optim.AdamW(decoupled.parameters_of(m), lr=2e-3) for m in range(len(decoupled.partition))]


def step(module: int) -> None:
    """Called when the gradient of a module, and of its auxiliary network, is complete."""
    optimizers[module].step()
    optimizers[module].zero_grad()  # frees the gradient before the next module begins


for epoch in range(1, given.epochs + 1):
    batches = digits(Path("data")).limited(given.images).training(Feed(batch=BATCH), seed=0, drop_single=True)
    for images, labels in batches.epoch(epoch):
        decoupled.backward(images, labels, on_complete=step)
report("each module as soon as it can", decoupled)

pairs = zip(together.parameters(), decoupled.parameters(), strict=True)
print("largest difference between the weights:", max(float((a - b).detach().abs().max()) for a, b in pairs))
