"""The error for memory that runs out names the module, the predicted peak and a command."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

import locallearn as ll
from locallearn.cost import peak_memory
from networks import small_net

IMAGES, LABELS = torch.zeros(4, 3, 16, 16), torch.zeros(4, dtype=torch.long)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    MemoryError(),
]


def failing(net: ll.LocalNet, module: int, error: BaseException, *, backward: bool = False) -> ll.LocalNet:
    """The network, which raises the error on real tensors; predictions run on fake ones."""

    def fail(*_: object) -> None:
        raise error

    def hook(_: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if type(inputs[0]) is not Tensor or len(inputs[0]) != 4:
            return
        if backward:
            output.register_hook(fail)
        else:
            fail()

    net.local_modules[module].layers[0].register_forward_hook(hook)
    return net


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_module_the_predicted_peak_and_the_command_are_named(error):
    net = failing(small_net("DGL"), 5, error)
    predicted = peak_memory(net, 4).total
    with pytest.raises(ll.OutOfMemoryError) as raised:
        net.backward(IMAGES, LABELS)
    raised_error = raised.value
    assert (raised_error.module, raised_error.batch, raised_error.predicted) == (5, 4, predicted)
    assert "local module 5 (layer2.1)" in str(raised_error)
    assert f"{predicted / 2**20:,.2f} MiB by prediction" in str(raised_error)
    command = "locallearn plan --model MODEL --rule RULE --image 3x16x16 --classes 10 --batch 4 --memory "
    assert command in str(raised_error)
    assert raised_error.__context__ is None  # it would hold the step's tensors
    copy = pickle.loads(pickle.dumps(raised_error))
    assert (str(copy), copy.module, copy.batch, copy.predicted) == (str(raised_error), 5, 4, predicted)


def test_the_module_is_named_in_the_backward_pass_too():
    net = failing(small_net("DGL"), 3, ERRORS[0], backward=True)
    with pytest.raises(ll.OutOfMemoryError, match="local module 3 "):
        net.backward(IMAGES, LABELS)


def test_a_span_of_modules_is_named_as_a_whole():
    net = failing(small_net("BP"), 3, ERRORS[1])
    with pytest.raises(ll.OutOfMemoryError, match=r"local modules 0 to 9 .* --model MODEL --rules auto "):
        net.backward(IMAGES, LABELS)


def test_other_errors_pass_unchanged():
    net = failing(small_net("DGL"), 3, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        net.backward(IMAGES, LABELS)
