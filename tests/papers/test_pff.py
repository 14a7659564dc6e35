"""PFF (HPFF, section 3.3): Eq. 6-7, auxiliary networks patch by patch, as in the paper and in the official code."""

import copy
import functools
import warnings

import pytest
import torch
from patches import Heads, cells, four_distances
from torch import nn

import locallearn as ll
from locallearn._objectives.decoders import Decoder
from locallearn.cost import LiveBytes
from networks import SMALL, batch, count, mlp, parts, resnet20


@functools.cache
def at_each_width(rule: ll.Rule, shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[ll.Auxiliary, ...]:
    """Auxiliary networks after 16, 32 and 64 channels."""
    net = ll.localize(resnet20(), rule, modules=["stem", "layer2.0", "layer3.0"], input_shape=shape)
    return tuple(objective.auxiliary for objective in net.objectives[:-1])


@pytest.mark.parametrize(("index", "parameters"), [(0, 8_364), (1, 15_276), (2, 29_100)])
def test_four_decoders_of_the_official_pff(index, parameters):
    auxiliary = at_each_width(ll.PFF(ll.InfoPro(lambda1=(1, 1), lambda2=(0, 0))))[index]
    decoders = parts(auxiliary, Decoder)
    assert sum(map(count, decoders)) == parameters
    assert count(auxiliary) - parameters == (10_186, 28_170, 46_602)[index]  # the classifier is whole
    weights = [decoder.first.weight for decoder in decoders]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    for weight in weights:
        assert weight.std().item() == pytest.approx((2 / (9 * 12)) ** 0.5, rel=0.1)
    features, (images, labels) = torch.randn(4, 16 << index, 32 >> index, 32 >> index), batch(4, (3, 32, 32))
    found = auxiliary(features, images, labels)
    torch.testing.assert_close(found, sum(four_distances(auxiliary, features, images)))


@pytest.mark.parametrize("shape", [(3, 17, 13), (3, 9, 14)], ids=str)
@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_odd_images_train(shape, fidelity):
    rule = ll.HPFF(ll.InfoPro(), fidelity=fidelity)
    net = ll.localize(resnet20(), rule, modules=["stem", "layer2.0", "layer2.1"], input_shape=shape)
    assert net.backward(*batch(4, shape)).isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("rule", [ll.PFF(ll.DGL()), ll.HPFF(ll.Pooling())], ids=["PFF", "HPFF"])
def test_without_a_decoder_the_official_pff_warns_once_and_changes_nothing(rule):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")  # as users have it
        net = ll.localize(resnet20(), rule, input_shape=SMALL)
    assert all(issubclass(w.category, UserWarning) and "decoder" in str(w.message) for w in found)
    assert len(found) == 1
    inner = rule.rule if isinstance(rule, ll.PFF) else ll.HiLo(rule.rule)
    plain = ll.localize(resnet20(), inner, input_shape=SMALL)
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(net.backward(*batch()), plain.backward(*batch()))


@pytest.mark.parametrize("patches", [1, 2, 3])
@pytest.mark.parametrize("rule", [Heads(), ll.DGL(), ll.PredSim(), ll.AugLocal()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("shape", [SMALL, (3, 15, 13)], ids=str)
def test_eq7_is_the_average_over_patches_in_one_graph(patches, rule, shape):
    paper = ll.PFF(rule, patches=patches, fidelity="paper")
    net = ll.localize(resnet20().double(), paper, modules=["layer1.1"], input_shape=shape)
    auxiliary = net.objectives[0].auxiliary
    reference = copy.deepcopy(auxiliary.auxiliary)
    images, labels = batch(5, shape)
    features = torch.randn(5, 16, *shape[1:], dtype=torch.float64)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    found = auxiliary(ours, images.double(), labels)
    found.backward()
    outputs = [reference.outputs(patch, images) for patch in cells(theirs, patches)]
    single = [out if isinstance(out, tuple) else (out,) for out in outputs]
    mean = tuple(sum(terms) / len(single) for terms in zip(*single, strict=True))
    expected = reference.loss_of(mean if isinstance(outputs[0], tuple) else mean[0], images.double(), labels)
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-13)
    for a, b in zip(auxiliary.auxiliary.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-12)
    for (name, a), b in zip(auxiliary.auxiliary.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)  # statistics moved once for each patch, in their order
    logits = sum(reference.eval().logits(patch) for patch in cells(features, patches)) / patches**2
    torch.testing.assert_close(auxiliary.eval().logits(features), logits)


@pytest.mark.parametrize("rule", [Heads(), ll.InfoPro(), ll.DGL(), ll.PredSim()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize(("shape", "patches"), [((3, 9, 9), 2), ((3, 9, 12), 2), ((3, 17, 17), 3)], ids=str)
def test_patches_of_unequal_size_train_however_small_they_are(rule, shape, patches):
    """The last maps are 3 x 3, 3 x 3 and 5 x 5, so that some patches have one row and others two."""
    net = ll.localize(
        resnet20(), ll.PFF(rule, patches=patches, fidelity="paper"), modules=["layer2.0", "layer3.0"], input_shape=shape
    )
    assert net.backward(*batch(4, shape)).isfinite().all()


def test_eq7_the_decoder_is_shared_and_its_losses_are_averaged():
    auxiliary = at_each_width(ll.PFF(ll.InfoPro(lambda1=(1, 1), lambda2=(0, 0)), fidelity="paper"))[0]
    assert count(auxiliary) == 10_186 + 2_091
    features, (images, labels) = torch.randn(4, 16, 32, 32), batch(4, (3, 32, 32))
    expected = sum(four_distances(auxiliary, features, images)) / 4
    torch.testing.assert_close(auxiliary(features, images, labels), expected)


@pytest.mark.parametrize(("fidelity", "times"), [("official", 1), ("paper", 4)])
def test_running_statistics_move_once_for_each_patch(fidelity, times):
    rule = ll.PFF(ll.InfoPro(head="2c2f"), fidelity=fidelity)
    net = ll.localize(resnet20(), rule, modules=3, input_shape=SMALL)
    net.backward(*batch())
    norms = [part for o in net.objectives[:-1] for part in parts(o.auxiliary, nn.BatchNorm2d)]
    assert norms
    assert {norm.num_batches_tracked.item() for norm in norms} == {times}


@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_features_smaller_than_the_patches_are_not_cut_with_a_warning(fidelity):
    rule = ll.PFF(ll.InfoPro(), patches=3, fidelity=fidelity)
    with pytest.warns(UserWarning, match="does not cut features smaller than 3 x 3"):
        net = ll.localize(resnet20(), rule, modules=["layer2.0", "layer3.0"], input_shape=(3, 8, 8))
    assert net.backward(*batch(4, (3, 8, 8))).isfinite().all()
    plain = ll.localize(resnet20(), ll.InfoPro(), modules=["layer3.0"], input_shape=(3, 8, 8))  # of 2 x 2
    found, expected = net.objectives[1].auxiliary, plain.objectives[0].auxiliary
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}


@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_vectors_are_not_cut_with_a_warning(fidelity):
    with pytest.warns(UserWarning, match="does not cut features"):
        net = ll.localize(mlp(), ll.PFF(ll.Pooling(), fidelity=fidelity), input_shape=(3, 6, 6))
    plain = ll.localize(mlp(), ll.Pooling(), input_shape=(3, 6, 6))
    images, labels = batch(4, (3, 6, 6), 5)
    assert torch.equal(net.backward(images, labels), plain.backward(images, labels))


def head_memory(rule: ll.Rule) -> int:
    """Peak bytes of forward and backward of a head on 64 features of 16 x 32 x 32, their gradient left out."""
    auxiliary = at_each_width(rule)[0]
    features = torch.randn(64, 16, 32, 32, requires_grad=True)
    images, labels = batch(64, (3, 32, 32))
    known = [*auxiliary.parameters(), *auxiliary.buffers(), features, images, labels]
    with LiveBytes(known=known, parameters=auxiliary.parameters()) as live:
        auxiliary(features, images, labels).backward()
    return live.peak_activations - features.numel() * features.element_size()


def test_one_patch_at_a_time_saves_memory():
    assert head_memory(ll.PFF(Heads(), fidelity="paper")) <= 0.6 * head_memory(Heads())
