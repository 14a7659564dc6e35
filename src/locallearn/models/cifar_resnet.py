"""ResNets for small images: depth 6n + 2, three stages of n basic blocks with 16, 32 and 64 channels.

He et al. 2016, with projection shortcuts (option B) as in the official code of InfoPro and AugLocal.
"""

from __future__ import annotations

from torch import Tensor, nn

from locallearn._chain.chain import Chain
from locallearn._nn.init import he_normal_
from locallearn._nn.layer_like import new_layer_like


class BasicBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, then ReLU.

    The shortcut is the identity, or conv1x1 - BN where stride or width change.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        # Batch normalisation does not need its output for its backward, so later operations may write in place.
        # One expression, so that no name holds an activation while the next operation runs.
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


@new_layer_like.register
def _(layer: BasicBlock, *, in_channels: int, stride: int) -> BasicBlock:
    return BasicBlock(in_channels, layer.conv2.out_channels, stride)


class CifarResNet(nn.Module):
    """A ResNet for images of about 32 x 32 pixels; parameters are named as torchvision names them.

    Args:
        depth: 6n + 2 layers with weights.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, num_classes)
        he_normal_(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.avgpool(x)))

    def chain(self) -> Chain:
        """The stem, then each residual block; the classifier pools."""
        layers: dict[str, nn.Module] = {"stem": nn.Sequential(self.conv1, self.bn1, self.relu)}
        for stage in ("layer1", "layer2", "layer3"):
            for name, block in self.get_submodule(stage).named_children():
                layers[f"{stage}.{name}"] = block
        return Chain(layers=layers, classifier=nn.Sequential(self.avgpool, self.flatten, self.fc))


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (BasicBlock(channels, channels) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)


def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20: 10 layers (stem and 9 blocks)."""
    return CifarResNet(20, num_classes=num_classes, in_channels=in_channels)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-32: 16 layers, 466,906 parameters with 10 classes."""
    return CifarResNet(32, num_classes=num_classes, in_channels=in_channels)


def resnet44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-44: 22 layers."""
    return CifarResNet(44, num_classes=num_classes, in_channels=in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56: 28 layers."""
    return CifarResNet(56, num_classes=num_classes, in_channels=in_channels)


def resnet110(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-110: 55 layers, 1,730,714 parameters with 10 classes."""
    return CifarResNet(110, num_classes=num_classes, in_channels=in_channels)
