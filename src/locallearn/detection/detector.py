"""Mask R-CNN on a trained backbone."""

from __future__ import annotations

from torch import nn

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.detection.pyramid import Pyramid
from locallearn.detection.region_operators import import_detection
from locallearn.detection.settings import DetectSettings
from locallearn.training import Trained


def mask_rcnn(trained: Trained, settings: DetectSettings, *, categories: int) -> nn.Module:
    """Torchvision's Mask R-CNN (He et al. 2017), with a feature pyramid on a trained backbone.

    It normalises images as they were in the backbone's training. In training mode it maps a list of images
    (3, height, width) from 0 to 1 and a list of targets to losses, in evaluation mode a list of images to detections:
    see torchvision's `MaskRCNN`.

    Args:
        trained: the backbone; its network becomes part of the detector.
        settings: frozen stages, sizes of images, channels, numbers of regions.
        categories: number of categories, background not counted.

    Raises:
        LocalLearnError: torchvision is missing, or the backbone does not fit.
    """
    import_detection()
    from torchvision.models.detection import MaskRCNN  # pyright: ignore[reportMissingImports]

    if trained.image_shape[0] != 3:
        raise LocalLearnError(
            f"{trained.name} was trained on images of {counted(trained.image_shape[0], 'channel')}; a detector's have"
            " 3."
        )
    return MaskRCNN(
        Pyramid(trained.model, frozen_stages=settings.frozen_stages, channels=settings.channels),
        num_classes=categories + 1,
        min_size=settings.min_size,
        max_size=settings.max_size,
        box_batch_size_per_image=settings.regions,
        rpn_post_nms_top_n_test=settings.proposals,
        image_mean=list(trained.mean),
        image_std=list(trained.std),
    )
