"""Deep copies of modules that hold computed tensors, also where these are no children."""

import threading

import pytest
import torch
from torch import nn

from locallearn._torch.deep_copy import deep_copy
from locallearn._utils.errors import LocalLearnError


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_module_with_a_normed_layer_in_a_tuple_is_copied():
    layer = nn.utils.weight_norm(nn.Linear(2, 2))
    layer(torch.ones(1, 2))
    holder = nn.Module()
    holder.sources = (layer,)
    copied = deep_copy(holder).sources[0]
    assert copied is not layer
    assert torch.equal(copied(torch.ones(1, 2)), layer(torch.ones(1, 2)))


class WithState(nn.Module):
    def __getstate__(self):
        return vars(self) | {"copied": True}


def test_the_copy_is_that_of_the_copy_module():
    inner, empty = WithState(), {}
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), inner)
    module[0].shared = module[1].shared = empty
    module.again, module.names, module.set = (inner,), {"a": [module[0].weight]}, {1}
    copied = deep_copy(module, {id(module[1].weight): "known"})
    assert copied[0].shared is copied[1].shared is not empty
    assert copied.again[0] is copied[2] is not inner
    assert copied[2].copied
    assert copied.names["a"][0] is copied[0].weight is not module[0].weight
    assert copied[1]._parameters["weight"] == "known"
    assert copied.set == {1}
    assert copied.set is not module.set
    assert [type(part) for part in copied.modules()] == [type(part) for part in module.modules()]
    assert torch.equal(copied[0].weight, module[0].weight)
    assert vars(copied[0]).keys() == vars(module[0]).keys()


def test_what_cannot_be_copied_is_named():
    layer = nn.Linear(2, 2)
    layer.lock = threading.Lock()
    with pytest.raises(LocalLearnError, match=r"a network holds a lock, which cannot be copied \(cannot pickle"):
        deep_copy(nn.Sequential(layer))
