"""Mask R-CNN on a trained backbone."""

from __future__ import annotations

from torch import nn

from locallearn._utils.errors import LocalLearnError
from locallearn.detection.pyramid import Pyramid
from locallearn.detection.region_operators import import_detection
from locallearn.training import Trained


def mask_rcnn(
    trained: Trained,
    *,
    categories: int,
    frozen_stages: int = 1,
    min_size: int = 800,
    max_size: int = 1333,
    channels: int = 256,
    regions: int = 512,
    proposals: int = 1000,
) -> nn.Module:
    """Torchvision's Mask R-CNN (He et al. 2017), with a feature pyramid on a trained backbone.

    It normalises images as they were in the backbone's training. In training mode it maps a list of images
    (3, height, width) from 0 to 1 and a list of targets to losses, in evaluation mode a list of images to detections:
    see torchvision's `MaskRCNN`.

    Args:
        trained: the backbone; its network becomes part of the detector.
        categories: number of categories, background not counted.
        frozen_stages: see `Pyramid`.
        min_size: pixels of the shorter side of a resized image,
        max_size: or of the longer side, whichever makes the image smaller.
        channels: of each level of the feature pyramid.
        regions: number of regions per image on which the heads are trained.
        proposals: number of regions per image that the heads classify in evaluation.

    Raises:
        LocalLearnError: torchvision is missing, or the backbone does not fit.
    """
    import_detection()
    from torchvision.models.detection import MaskRCNN  # pyright: ignore[reportMissingImports]

    if trained.image_shape[0] != 3:
        raise LocalLearnError(
            f"{trained.name} was trained on images of {trained.image_shape[0]} channels; a detector's have 3."
        )
    return MaskRCNN(
        Pyramid(trained.model, frozen_stages=frozen_stages, channels=channels),
        num_classes=categories + 1,
        min_size=min_size,
        max_size=max_size,
        box_batch_size_per_image=regions,
        rpn_post_nms_top_n_test=proposals,
        image_mean=list(trained.mean),
        image_std=list(trained.std),
    )
