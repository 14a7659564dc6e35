"""Backbones."""

from locallearn.models._cifar_resnet import (
    BasicBlock as BasicBlock,
    CifarResNet as CifarResNet,
    resnet20 as resnet20,
    resnet32 as resnet32,
    resnet44 as resnet44,
    resnet56 as resnet56,
    resnet110 as resnet110,
)
