"""Stand-ins for torchvision's compiled operators, against torchvision's own code and against slow loops."""

import sys

import pytest
import torch

from locallearn.detection.region_operators import import_detection, nms, roi_align

torchvision = import_detection()


def boxes(count: int, side: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=draw) * side
    return torch.cat([corners.amin(1), corners.amax(1)], dim=1)


def test_non_maximum_suppression_keeps_what_nothing_better_covers():
    found, scores = boxes(200, 20), torch.rand(200, generator=torch.Generator().manual_seed(1)).round(decimals=2)
    overlap = torchvision.ops.box_iou(found, found)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if all(overlap[index, better] <= 0.4 for better in kept):
            kept.append(index)
    assert 10 < len(kept) < 150
    assert nms(found, scores, 0.4).tolist() == kept
    assert torchvision.ops.nms(found, scores, 0.4).tolist() == kept


def test_suppression_of_nothing_and_by_class():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    twice, scores = boxes(1, 9).repeat(3, 1), torch.tensor([0.1, 0.3, 0.2])
    assert torchvision.ops.batched_nms(twice, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [2, 3, 0])
def test_regions_and_their_gradients_are_torchvisions(ratio, aligned):
    written = sys.modules["torchvision.ops.roi_align"]
    theirs = written._bilinear_interpolate  # the sampling that torchvision's own form in Python does
    features = torch.randn(2, 3, 12, 17, dtype=torch.float32, requires_grad=True)
    regions = torch.cat([torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]]), boxes(5, 22)], dim=1)
    ours = roi_align(features, regions, 0.5, 4, 5, ratio, aligned)
    expected = torch.stack(
        [by_hand(theirs, features, region, 0.5, 4, 5, ratio, aligned) for region in regions.detach()]
    )
    assert torch.allclose(ours, expected, atol=1e-5)
    weights = torch.randn(ours.shape)
    (mine,) = torch.autograd.grad((ours * weights).sum(), features)
    (other,) = torch.autograd.grad((expected * weights).sum(), features)
    assert torch.allclose(mine, other, atol=1e-4)


def by_hand(sample, features, region, scale, height, width, ratio, aligned):
    """Each cell of one region is the mean of its samples."""
    image, corners = region[:1].long(), region[1:] * scale - 0.5 * aligned
    extent = corners[2:] - corners[:2]
    extent = extent if aligned else extent.clamp(min=1)
    cell = extent / torch.tensor([width, height])
    across, down = (ratio, ratio) if ratio else cell.ceil().clamp(min=1).int().tolist()
    rows = []
    for row in range(height):
        y = corners[1] + cell[1] * (row + (torch.arange(down) + 0.5) / down)
        columns = []
        for column in range(width):
            x = corners[0] + cell[0] * (column + (torch.arange(across) + 0.5) / across)
            columns.append(
                sample(features, image, y.view(1, 1, -1), x.view(1, 1, -1), None, None).mean((4, 5)).flatten()
            )
        rows.append(torch.stack(columns, dim=1))
    return torch.stack(rows, dim=1)


def test_torchvision_uses_them_where_its_own_are_missing():
    features, regions = torch.randn(1, 2, 8, 8), [boxes(3, 8)]
    pooled = torchvision.ops.roi_align(features, regions, output_size=2, sampling_ratio=2)
    rois = torch.cat([torch.zeros(3, 1), regions[0]], dim=1)
    assert torch.allclose(pooled, roi_align(features, rois, 1.0, 2, 2, 2, False), atol=1e-5)
    assert torchvision.ops.roi_align(features, [torch.zeros(0, 4)], output_size=2).shape == (0, 2, 2, 2)
