from itertools import pairwise

import pytest

from locallearn import LocalLearnError
from locallearn.training import Constant, Cosine, PaperCosine


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(1, 0.0100), (2, 0.08900), (5, 0.32588), (10, 0.71989), (11, 0.79851), (200, 0.4), (399, 1e-05)],
)
def test_the_papers_cosine_has_the_published_values(epoch, expected):
    lr = PaperCosine().lr(0.8, epoch=epoch, epochs=400, step=0, steps=49)
    assert round(lr, 5) == expected
    assert lr == PaperCosine().lr(0.8, epoch=epoch, epochs=400, step=48, steps=49), "constant within an epoch"


def test_the_papers_cosine_ends_at_exactly_zero():
    assert PaperCosine().lr(0.8, epoch=399, epochs=400, step=0, steps=49) == pytest.approx(1.2337e-05, rel=1e-4)
    assert PaperCosine().lr(0.8, epoch=400, epochs=400, step=0, steps=49) == 0.0


def test_the_plain_cosine_falls_at_each_step_from_the_base_towards_zero():
    lrs = [Cosine().lr(0.1, epoch=1 + i // 5, epochs=4, step=i % 5, steps=5) for i in range(20)]
    assert lrs[0] == 0.1
    assert lrs[10] == pytest.approx(0.05)
    assert all(after < before for before, after in pairwise(lrs))
    assert 0 < lrs[-1] < 0.001


def test_the_plain_cosine_can_rise_first():
    lrs = [Cosine(warmup=0.25).lr(1.0, epoch=1, epochs=1, step=i, steps=40) for i in range(40)]
    assert lrs[0] == pytest.approx(0.1)
    assert max(lrs) == lrs[9]


def test_constant_is_constant():
    assert {Constant().lr(0.3, epoch=e, epochs=9, step=s, steps=4) for e in (1, 9) for s in (0, 3)} == {0.3}


def test_a_warmup_over_all_steps_is_refused():
    with pytest.raises(LocalLearnError, match=r"warmup=1\.0 is a share of all steps"):
        Cosine(warmup=1.0)
