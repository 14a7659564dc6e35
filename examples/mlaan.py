"""MLAAN (Zhang et al., 2024): cascades of three modules, and copies of later layers before their heads.

MLM puts a cascade over every three neighbouring modules beside the objectives of single modules. LAM puts a chain of
trainable and EMA copies of later layers, up to the network's last, before an auxiliary network. MLAAN is both.

python examples/mlaan.py
"""

import locallearn as ll
from common import localized, options, report, train

given = options(__doc__)
for name, rule in {
    "DGL": ll.DGL(),
    "MLM(DGL)": ll.MLM(ll.DGL()),
    "LAM(DGL)": ll.LAM(ll.DGL()),
    "MLAAN(DGL)": ll.MLAAN(ll.DGL()),
}.items():
    net = localized(rule, modules=5)
    train(net, given)
    report(name, net)
