"""HPFF (Su et al., ECCV 2024): objectives at two levels, and auxiliary networks that see patches.

HiLo adds cascades, objectives over two neighbouring modules, to the objectives of single modules. PFF applies an
auxiliary network to four patches and averages, which needs less memory. HPFF is both, here around InfoPro.

python examples/hpff.py
"""

import locallearn as ll
from common import localized, options, report, train

given = options(__doc__)
inner = ll.InfoPro.hpff()
for name, rule in {
    "InfoPro": inner,
    "HiLo(InfoPro)": ll.HiLo(inner),
    "PFF(InfoPro)": ll.PFF(inner, fidelity="paper"),
    "HPFF(InfoPro)": ll.HPFF(inner, fidelity="paper"),
}.items():
    net = localized(rule, modules=4)
    train(net, given)
    report(name, net)
    print(f"{'':34} objectives (first, last): {[(o.first, o.last) for o in net.objectives]}")
