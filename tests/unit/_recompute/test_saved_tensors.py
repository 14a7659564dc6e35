"""What the backward pass gets where the forward pass saved a tensor."""

import pytest
import torch

from locallearn._recompute.saved_tensors import Recomputation, SavedTensor


def doubled(source: torch.Tensor, may_overwrite: bool) -> torch.Tensor:
    return source.mul_(2) if may_overwrite else source * 2


def test_a_stored_tensor_is_returned_as_it_was_saved():
    tensor = torch.ones(3)
    assert SavedTensor(tensor).unpack().data_ptr() == tensor.data_ptr()


def test_a_stored_tensor_that_was_overwritten_raises_pytorchs_own_error():
    tensor = torch.ones(3)
    saved = SavedTensor(tensor)
    tensor.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.unpack()


def test_a_replaced_tensor_is_recomputed_from_its_source():
    source = torch.arange(3.0)
    saved = SavedTensor(source * 2)
    saved.replace_by(Recomputation(source, doubled, source * 2))
    assert torch.equal(saved.unpack(), source * 2)
    assert torch.equal(source, torch.arange(3.0))


def test_a_source_that_was_overwritten_raises_pytorchs_own_error():
    source = torch.arange(3.0)
    saved = SavedTensor(source * 2)
    saved.replace_by(Recomputation(source, doubled, source * 2))
    source.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.unpack()


def test_a_recomputed_tensor_is_alive_until_its_last_use():
    source = torch.arange(3.0)
    recomputation = Recomputation(source, doubled, source * 2)
    uses = [SavedTensor(source * 2) for _ in range(2)]
    for saved in uses:
        saved.replace_by(recomputation)
    first, second = (saved.unpack() for saved in uses)
    assert first is second
    assert uses[0].unpack() is not first


def test_a_chain_of_recomputations_starts_at_the_stored_source():
    source = torch.arange(3.0)
    inner = Recomputation(source, doubled, source * 2)
    saved = SavedTensor(source * 4)
    saved.replace_by(Recomputation(inner, doubled, source * 4))
    assert torch.equal(saved.unpack(), source * 4)
    assert torch.equal(source, torch.arange(3.0))


def test_a_recomputation_knows_its_result_by_layout_and_version():
    result = torch.ones(2, 3)
    recomputation = Recomputation(torch.ones(2, 3), doubled, result)
    assert recomputation.gives(result)
    assert not recomputation.gives(result.t())
    result.add_(1)
    assert not recomputation.gives(result)
