"""PredSim (Nøkland & Eidnes, ICML 2019): a linear head and similarity matching on every module.

The loss of a module is (1 - beta) * cross entropy + beta * similarity matching. The paper's predsim is both; beta = 0
is its pred, beta = 1 its sim, in which no hidden layer sees a class, only which images belong together.

python examples/predsim.py
"""

import locallearn as ll
from common import localized, options, report, train

given = options(__doc__)
for name, rule in {
    "pred (beta = 0)": ll.PredSim(beta=0.0),
    "sim (beta = 1)": ll.PredSim(beta=1.0),
    "predsim (beta = 0.99)": ll.PredSim(),
}.items():
    net = localized(rule)
    train(net, given)
    report(name, net)
