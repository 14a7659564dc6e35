"""AugLocal (Ma et al., ICLR 2024): auxiliary networks made of layers like the backbone's later ones.

Deeper auxiliary networks bring a module closer to what the network needs from it, and cost memory and time. Their depth
falls over the modules, from `depth` to about half of it (Eq. 3).

python examples/auglocal.py
"""

import torch

import locallearn as ll
from common import localized, options, report, train

given = options(__doc__)
for name, rule in {
    "backpropagation": ll.BP(),
    "DGL": ll.DGL(),
    **{f"AugLocal, depth {depth}": ll.AugLocal(depth=depth) for depth in (2, 4)},
}.items():
    net = localized(rule)
    train(net, given)
    report(name, net)

net = localized(ll.AugLocal(depth=4))
print("\nthe backbone's layers:", " ".join(net.chain.names))
print("modules that remain end with:", " ".join(net.chain.names[end] for end in net.partition.ends))
for objective in net.objectives[:-1]:
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in objective.auxiliary.modules())
    print(f"auxiliary network of module {objective.last}: {convolutions} convolutions")
