"""New layers like the blocks of timm's convolutional networks."""

from __future__ import annotations

from functools import partial

from timm.models import _efficientnet_blocks, regnet, resnet  # pyright: ignore[reportMissingImports]

from locallearn._nn.layer_like import block_like, new_layer_like

for block in (resnet.BasicBlock, resnet.Bottleneck, regnet.Bottleneck):
    new_layer_like.register(block, partial(block_like, shortcut="downsample"))
for block in (
    *(_efficientnet_blocks.InvertedResidual, _efficientnet_blocks.DepthwiseSeparableConv),
    *(_efficientnet_blocks.EdgeResidual, _efficientnet_blocks.ConvBnAct),
):
    new_layer_like.register(block, partial(block_like, flag="has_skip"))
