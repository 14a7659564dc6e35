"""What several processes agree on; here, one that plays them all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_runs import settings, stripes

from locallearn import LocalLearnError
from locallearn._torch.device import all_random_states
from locallearn.data import Feed, LoaderBatches
from locallearn.training.processes.agreement import digest, facts_of, refuse_differences, refuse_uncut
from locallearn.training.processes.grid import ProcessGrid
from locallearn.training.processes.processes import Processes

CPU = torch.device("cpu")


class Told(Processes):
    """Several processes, of which this one is told what all say."""

    def __init__(self, *values: object, rank: int = 0) -> None:
        super().__init__(CPU)
        self.values, self.rank, self.layout = list(values), rank, ProcessGrid(data=len(values))

    def of_all(self, value):
        return self.values


def test_processes_that_say_the_same_go_on_and_others_are_named(tmp_path):
    mine = facts_of(settings())
    refuse_differences(Told(mine, dict(mine), dict(mine)), mine)
    assert facts_of(settings(workers=1, data_dir=tmp_path)) == mine
    for facts, told in (
        (facts_of(settings(seed=1)), "process 2 has another seed than process 0: 1, not 0"),
        (mine | {"torch": "1.0"}, r"process 2 has another torch than process 0: 1\.0, not "),
    ):
        with pytest.raises(LocalLearnError, match=told):
            refuse_differences(Told(mine, dict(mine), facts), mine)


def test_a_split_is_told_from_another_by_its_images_and_labels(tmp_path):
    data = stripes(tmp_path)
    feed = Feed(batch=8)
    assert digest(data.testing(feed)) == digest(data.testing(replace(feed, batch=4)))
    images = data.test.images.copy()
    images[-1, -1, -1, -1] ^= 1
    other = replace(data, test=replace(data.test, images=images))
    assert digest(other.testing(feed)) != digest(data.testing(feed))
    assert digest(data.limited(50).training(feed, seed=0, drop_single=False)) != digest(
        data.training(feed, seed=0, drop_single=False)
    )


def test_batches_of_a_class_that_cannot_be_cut_are_refused(tmp_path):
    loader = LoaderBatches(torch.utils.data.DataLoader([0]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(LocalLearnError, match=r"mine makes its batches by LoaderBatches, which cannot be cut"):
        refuse_uncut(loader, "mine")
    refuse_uncut(stripes(tmp_path).testing(Feed(batch=8)), "stripes")


def test_random_numbers_go_on_under_the_same_layout_and_are_derived_under_another():
    states = []
    for rank in range(3):
        torch.manual_seed(5)
        process = Told(*range(3), rank=rank)
        process.seed(5)
        states.append(all_random_states(CPU))
    assert len({tuple(state["cpu"].tolist()) for state in states}) == 3, "processes draw different numbers"
    torch.set_rng_state(states[0]["cpu"])
    saved = Told(states[0], *states[1:]).random_states()
    for rank, state in enumerate(states):
        torch.manual_seed(9)
        Told(*range(3), rank=rank).set_random_states(saved, epoch=2, step=1)
        assert torch.equal(torch.get_rng_state(), state["cpu"])
    drawn = []
    for rank, step in ((0, 1), (1, 1), (1, 2)):
        torch.manual_seed(9)
        Told(*range(2), rank=rank).set_random_states(saved, epoch=2, step=step)
        drawn.append(torch.rand(1).item())
    torch.set_rng_state(states[0]["cpu"])
    assert drawn[0] == torch.rand(1).item(), "the first process goes on in any layout"
    assert len(set(drawn)) == 3
