"""Handwritten digits that scikit-learn brings along: real images without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from locallearn._utils.optional_imports import optional
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.image_set import ImageSet, Split

_BRIGHTEST = 16

# Over all pixels of the training split: `train.images.mean()` and `train.images.std()`, to one decimal.
_MEAN, _STD = 78.0, 81.3


def digits(root: Path) -> ImageSet:
    """1797 grey images of ten digits, enlarged from 8 x 8 to 16 x 16 pixels and given three equal channels.

    They are the test split of UCI's "Optical Recognition of Handwritten Digits", in the order of their writers. Every
    fifth image is for testing, so each writer is in both splits.

    Args:
        root: not used: the digits are installed with scikit-learn. All data sets are called with it.

    Raises:
        LocalLearnError: scikit-learn is not installed.
    """
    del root
    bundled = optional("sklearn.datasets").load_digits()
    images, labels = _enlarged(bundled.images), bundled.target.astype(np.int64)
    testing = np.arange(len(labels)) % 5 == 4
    return ImageSet(
        train=Split(images=images[~testing], labels=labels[~testing]),
        test=Split(images=images[testing], labels=labels[testing]),
        classes=tuple("0123456789"),
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
        augmentation=Augmentation(pad=1, border=Border.ZERO, flip=False),  # a mirrored digit is no digit
    )


def _enlarged(grey: np.ndarray) -> np.ndarray:
    """(n, 8, 8) with whole numbers from 0 to 16 as uint8 (n, 16, 16, 3) from 0 to 255.

    The bilinear weights are multiples of 1/16, so float32 holds every value exactly up to the one rounding at the end:
    the same bytes on every machine.
    """
    small = torch.from_numpy(grey).float().unsqueeze(1)
    large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    pixels = (large * 255 / _BRIGHTEST).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()
