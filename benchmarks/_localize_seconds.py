"""Prints, as JSON, seconds of one core that `localize` takes; public names alone, so that it runs on other versions."""

import json
from collections.abc import Callable
from time import process_time

import torch

import locallearn as ll

RULES: dict[str, ll.Rule] = {
    "auglocal(depth=4)": ll.AugLocal(depth=4),
    "hpff(infopro)": ll.HPFF(ll.InfoPro.published("hpff")),
    "mlaan(dgl)": ll.MLAAN(ll.DGL()),
}
ROUNDS = 3


def seconds(make: Callable[[], torch.nn.Module], rule: ll.Rule) -> float:
    """The least of some rounds, of which the first warms up."""
    times = []
    for _ in range(ROUNDS):
        model = make()
        start = process_time()
        ll.localize(model, rule, input_shape=(3, 32, 32))
        times.append(process_time() - start)
    return min(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        json.dumps(
            {
                f"{make.__name__}, {name}": seconds(make, rule)
                for make in (ll.models.resnet32, ll.models.resnet110)
                for name, rule in RULES.items()
            }
        )
    )
