"""InfoPro (Wang et al., ICLR 2021): modules that preserve what they may not need yet.

Each module reconstructs the image beside its task, lambda1 * reconstruction + lambda2 * task, so early modules do not
discard what later ones could use. lambda1 falls and lambda2 rises from the first module to the last.

python examples/infopro.py
"""

import locallearn as ll
from common import localized, options, report, train

given = options(__doc__)
for name, rule in {
    "task alone (lambda1 = 0)": ll.InfoPro(lambda1=(0.0, 0.0), lambda2=(1.0, 1.0)),
    "cross entropy, AugLocal's form": ll.InfoPro(),
    "contrastive, InfoPro's own form": ll.InfoPro.original(),
}.items():
    net = localized(rule, modules=4)
    losses = train(net, given)
    report(name, net)
    print(f"{'':34} losses by module: {' '.join(f'{loss:.2f}' for loss in losses)}")
