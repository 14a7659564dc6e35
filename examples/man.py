"""MAN (Su et al., ECCV 2024): auxiliary networks that begin with an EMA copy of the next layer.

The copy tells a module what the next layer expects; a trainable layer beside it, the learnable bias, makes up for the
difference between the two modules' features. Here around DGL: each part alone, then both. At momentum 0.995 half of a
copy's random start is left after 138 steps, so in a run as short as this one the copies do not help yet.

python examples/man.py
"""

import locallearn as ll
from common import localized, options, report, train

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
