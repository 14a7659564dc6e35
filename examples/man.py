"""MAN (Su et al., ECCV 2024): auxiliary networks that begin with an EMA copy of the next layer.

The copy tells a module what the next layer expects; a trainable layer beside it, the learnable bias, makes up for the
difference between the two modules' features. Here around DGL: each part alone, then both.

python examples/man.py
"""

from common import localized, options, report, train

import locallearn as ll

given = options(__doc__)
for name, rule in {
    "DGL": ll.DGL(),
    "EMA copy alone": ll.MAN(ll.DGL(), bias=False),
    "learnable bias alone": ll.MAN(ll.DGL(), ema=False),
    "MAN(DGL)": ll.MAN(ll.DGL()),
}.items():
    net = localized(rule, modules=5)
    train(net, given)
    report(name, net)
