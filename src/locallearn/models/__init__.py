"""Backbones: CIFAR ResNets, and the papers' other networks, which need torchvision.

`locallearn.models.resnet34()` and its like are for images of ImageNet's size, `locallearn.models.cifar.resnet34()` for
small ones. `from_library` gives any network of torchvision or timm.
"""

from locallearn._torch.vision_libraries import import_torchvision as import_torchvision
from locallearn.models import cifar as cifar
from locallearn.models.cifar_resnet import (
    BasicBlock as BasicBlock,
    CifarResNet as CifarResNet,
    resnet20 as resnet20,
    resnet32 as resnet32,
    resnet44 as resnet44,
    resnet56 as resnet56,
    resnet110 as resnet110,
)
from locallearn.models.library import from_library as from_library
from locallearn.models.published import (
    efficientnet_b0 as efficientnet_b0,
    mobilenet_v2 as mobilenet_v2,
    regnet_x_400mf as regnet_x_400mf,
    resnet34 as resnet34,
    resnet50 as resnet50,
    resnet101 as resnet101,
    resnet152 as resnet152,
    resnext101_32x8d as resnext101_32x8d,
    vgg13 as vgg13,
    vgg19 as vgg19,
)
