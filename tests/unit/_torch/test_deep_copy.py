"""Deep copies of modules that hold computed tensors, also where these are no children."""

import pytest
import torch
from torch import nn

from locallearn._torch.deep_copy import deep_copy


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_module_with_a_normed_layer_in_a_tuple_is_copied():
    layer = nn.utils.weight_norm(nn.Linear(2, 2))
    layer(torch.ones(1, 2))
    holder = nn.Module()
    holder.sources = (layer,)
    copied = deep_copy(holder).sources[0]
    assert copied is not layer
    assert torch.equal(copied(torch.ones(1, 2)), layer(torch.ones(1, 2)))
