"""New layers like the blocks of torchvision's convolutional networks."""

from __future__ import annotations

from functools import partial

from torchvision.models import efficientnet, mobilenetv2, mobilenetv3, regnet, resnet  # pyright: ignore[reportMissingImports]

from locallearn._nn.layer_like import block_like, new_layer_like

for block in (resnet.BasicBlock, resnet.Bottleneck):
    new_layer_like.register(block, partial(block_like, shortcut="downsample"))
new_layer_like.register(regnet.ResBottleneckBlock, partial(block_like, shortcut="proj"))
for block in (
    *(mobilenetv2.InvertedResidual, mobilenetv3.InvertedResidual),
    *(efficientnet.MBConv, efficientnet.FusedMBConv),
):
    new_layer_like.register(block, partial(block_like, flag="use_res_connect"))
