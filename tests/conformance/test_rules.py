"""Every rule, wrapper and a sample of combinations through the one suite."""

from functools import lru_cache

import pytest

import locallearn as ll
from locallearn.testing import CHECKS, Case, check_rule
from networks import HIDDEN_BY_TORCH

RULES = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "Pooling": ll.Pooling(),
    "DGL": ll.DGL(),
    "DGL.original": ll.DGL.original(),
    "DGL.manpp": ll.DGL.manpp(),
    "PredSim": ll.PredSim(),
    "PredSim.original": ll.PredSim.original(),
    "InfoPro": ll.InfoPro(),
    "InfoPro contrastive": ll.InfoPro.published("infopro-resnet32-16"),
    "ImageNetInfoPro": ll.ImageNetInfoPro(),
    "AugLocal": ll.AugLocal(depth=3),
    "AugLocal paper": ll.AugLocal(depth=3, fidelity="paper"),
    "SequentialAugLocal": ll.SequentialAugLocal(depth=3),
    "RepetitiveAugLocal": ll.RepetitiveAugLocal(depth=3, downsample=True),
    "ConvolutionalAugLocal": ll.ConvolutionalAugLocal(depth=3),
    "ByStage": ll.ByStage(rules=(ll.DGL(), ll.AugLocal(depth=3), ll.Pooling())),
    "InfoProLoss": ll.InfoProLoss(ll.AugLocal(depth=3)),
    "HiLo": ll.HiLo(ll.DGL()),
    "HiLo paper": ll.HiLo(ll.DGL(), span=3, fidelity="paper"),
    "PFF": ll.PFF(ll.InfoPro()),
    "PFF paper": ll.PFF(ll.PredSim(), fidelity="paper"),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff")),
    "HPFF paper": ll.HPFF(ll.DGL(), fidelity="paper"),
    "MAN": ll.MAN(ll.DGL()),
    "MAN paper": ll.MAN(ll.DGL(), fidelity="paper"),
    "MANPP": ll.MANPP(ll.InfoPro()),
    "MLM": ll.MLM(ll.PredSim()),
    "LAM": ll.LAM(),
    "LAM paper": ll.LAM(ll.DGL(), fidelity="paper"),
    "MLAAN": ll.MLAAN(),
    "MLAAN of DGL": ll.MLAAN(ll.DGL()),
    "MLAAN of InfoPro, paper": ll.MLAAN(ll.InfoPro(), fidelity="paper"),
    "HPFF of MAN of AugLocal": ll.HPFF(ll.MAN(ll.AugLocal(depth=3)), fidelity="paper"),
    "MAN of HPFF of PredSim": ll.MAN(ll.HPFF(ll.PredSim())),
    "Reduced": ll.Reduced(ll.DGL(), grid=4),
    "Reduced, of MAN of AugLocal": ll.Reduced(ll.MAN(ll.AugLocal(depth=3)), grid=4),
    "InfoProLoss of MLM": ll.InfoProLoss(ll.MLM(ll.DGL())),
}


# Rules that differ in what they ask of the engine.
MECHANISMS = {"BP", "Checkpoint", "DGL", "InfoPro", "AugLocal", "HPFF paper", "MAN", "MLAAN"}
# The check of the objectives themselves, which each rule makes in its own way. It implies that gradients are isolated.
OF_OBJECTIVES = "gradients_are_those_of_each_objective"
CASES = [
    pytest.param(
        rule,
        check,
        id=f"{check.__name__}-{rule}",
        marks=() if rule in MECHANISMS or check.__name__ == OF_OBJECTIVES else pytest.mark.slow,
    )
    for rule in RULES
    for check in CHECKS
]


@lru_cache(maxsize=2)
def case(rule: str) -> Case:
    return Case(rule=RULES[rule])


@HIDDEN_BY_TORCH
@pytest.mark.filterwarnings("ignore:PFF:locallearn.LocalLearnWarning")
@pytest.mark.parametrize(("rule", "check"), CASES)
def test_every_rule_conforms(rule, check):
    check(case(rule))


class Careless(ll.Pooling):
    """A rule with a mistake: it trains each module twice over the last one only."""

    def spans(self, modules):
        return [ll.Span(first=0, last=modules - 1), *super().spans(modules)][: modules + 1]


def test_one_line_runs_a_rule_of_ones_own_and_names_what_fails():
    with pytest.raises(AssertionError, match="Careless, one_module_is_backpropagation: 2 objectives over one module"):
        check_rule(Careless())
