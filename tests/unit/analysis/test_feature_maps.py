"""Channel maps and Grad-CAM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from analysed_runs import backbone
from small_runs import stripes
from torch import nn

from locallearn import LocalLearnError
from locallearn._chain.layout import Kind, Layout
from locallearn.analysis import Run, feature_maps
from locallearn.analysis.feature_maps import _Tap

IMAGES = [7, 0, 31]


def chosen(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    return next(iter(run.testing(np.array(IMAGES), batch=3).epoch(1)))


def test_channel_maps_are_the_layers_output_at_the_channels_that_vary_most(runs):
    run = backbone(runs, "bp")
    found = feature_maps(run, run.layers[1], IMAGES, channels=3)
    output = list(run.outputs(chosen(run)[0]))[1]
    assert found.maps.shape == (3, 3, 12, 12)
    assert found.maps == pytest.approx(output[:, found.channels].numpy(), rel=1e-3, abs=1e-5)
    variation = output.std((0, 2, 3)).numpy()
    assert variation[found.channels].min() >= np.sort(variation)[-3]


def test_grad_cam_equals_its_equation(runs):
    run = backbone(runs, "dgl")
    images, labels = chosen(run)
    for index in range(3):
        found = feature_maps(run, run.layers[index], IMAGES)
        with torch.no_grad():
            features = list(run.outputs(images))[index].clone()
        features.requires_grad_()
        x = features
        for layer in (*run.net.chain.layers[index + 1 :], run.net.chain.classifier):
            x = layer(x.clone())
        score = x.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, features)
        cam = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1))
        assert found.grad_cam == pytest.approx(cam.detach().numpy(), rel=1e-3, abs=1e-6)
        assert (found.predictions == x.argmax(1).numpy()).all()


def test_pixels_labels_and_numbers_are_those_of_the_test_split(runs):
    test = stripes(runs).test
    found = feature_maps(backbone(runs, "bp"), backbone(runs, "bp").layers[0], IMAGES)
    assert found.images == tuple(IMAGES)
    assert (found.pixels == test.images[IMAGES]).all()
    assert (found.labels == test.labels[IMAGES]).all()


def test_the_result_is_used_again(runs):
    told, layer = [], backbone(runs, "bp").layers[0]
    first, again = (
        feature_maps(backbone(runs, "bp"), layer, IMAGES, watch=lambda *step: told.append(step)) for _ in range(2)
    )
    assert told == [(f"feature maps of bp after {layer}", done, 1) for done in (0, 1)]
    assert (first.maps == again.maps).all()
    assert (first.grad_cam == again.grad_cam).all()


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout(Kind.MAP, (3, 4, 5)), (2, 3, 4, 5)),
        (Layout(Kind.CHANNELS_LAST, (3, 4, 5)), (2, 4, 5, 3)),
        (Layout(Kind.TOKENS, (3, 4, 5)), (2, 20, 3)),
        (Layout(Kind.TOKENS, (3, 4, 5), prefix=2), (2, 22, 3)),
    ],
)
def test_a_tap_passes_on_every_layout_and_sees_maps(layout, shape):
    tap, x, seen = _Tap(layout), torch.randn(shape), []
    tap.maps.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.equal(tap(x), x)
    assert seen[0].shape == (2, 3, 4, 5)


@pytest.mark.parametrize("images", [[], [0, 40], [-1]])
def test_images_that_are_not_there_are_refused(images, trained):
    run = backbone(trained, "bp")
    with pytest.raises(LocalLearnError, match="give numbers of test images from 0 to 39"):
        feature_maps(run, run.layers[0], images)


def test_layers_without_maps_and_no_channels_are_refused(trained, monkeypatch):
    run = backbone(trained, "bp")
    with pytest.raises(LocalLearnError, match="channels=0 must be at least 1"):
        feature_maps(run, run.layers[0], [0], channels=0)
    vectors = Layout(Kind.VECTOR, (16, 1, 1))
    monkeypatch.setattr(run.net, "chain", _with_layouts(run.net.chain, vectors))
    with pytest.raises(LocalLearnError, match="has vectors, not maps: choose an earlier layer"):
        feature_maps(run, run.layers[0], [0])


def _with_layouts(chain, layout: Layout):
    from dataclasses import replace

    return replace(chain, layouts=(layout,) * len(chain), classifier=nn.Identity())
