"""Every network under every rule: layers, auxiliary parameters, multiply-accumulates, peak memory, and a real step.

    python benchmarks/networks.py                       # rows that results/networks.json lacks, and the page
    python benchmarks/networks.py --networks resnet34 "timm:vit_*" --rules DGL "MAN*" --again

Costs are of tensors without data: multiply-accumulates of one image forward (backbone and task heads), and the peak of
the activations of one step against that of backpropagation. The real steps, one in fp32 and one in bf16, have two
images, of 64 x 64 pixels where the network takes more; a step counts when losses and gradients are finite.
"""

from __future__ import annotations

import argparse
import json
import warnings
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import locallearn as ll
from locallearn._torch.device import mixed
from locallearn._utils.atomic_files import write_whole
from locallearn.cost import forward_macs, peak_memory
from locallearn.training import make_model

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "networks.json"
TABLE = ROOT / "docs" / "results" / "networks.md"
BATCH = 32

NETWORKS: dict[str, int] = {  # name on the command line: height and width of the images
    **dict.fromkeys(
        ("resnet32", "resnet110", "cifar-resnet34", "cifar-vgg13", "cifar-vgg19", "cifar-mobilenet-v2"), 32
    ),
    **dict.fromkeys(("cifar-efficientnet-b0", "cifar-regnet-x-400mf", "cifar-vit-tiny"), 32),
    **dict.fromkeys(("resnet34", "vgg13", "mobilenet-v2", "efficientnet-b0", "regnet-x-400mf"), 224),
    **dict.fromkeys(("timm:convnext_tiny", "timm:vit_small_patch16_224", "torchvision:vit_b_16"), 224),
    **dict.fromkeys(("torchvision:swin_t", "resnet50", "vgg19", "resnet101", "resnext101-32x8d", "resnet152"), 224),
    **dict.fromkeys(("cifar-resnet101", "cifar-resnext101-32x8d", "cifar-resnet152"), 32),
}
WIDE = ("resnet50", "resnet101", "resnext101", "resnet152")  # DGL's heads after 2048 channels are large


def modules_of(network: str) -> int:
    """How many local modules a network is trained in."""
    return 4 if any(name in network for name in WIDE) else 8


RULES: dict[str, ll.Rule] = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "Pooling": ll.Pooling(),
    "DGL": ll.DGL(),
    "PredSim": ll.PredSim(),
    "InfoPro": ll.InfoPro(),
    "AugLocal": ll.AugLocal(depth=4),
    "HPFF(DGL)": ll.HPFF(ll.DGL()),
    "HPFF(DGL), paper": ll.HPFF(ll.DGL(), fidelity="paper"),
    "MAN(DGL)": ll.MAN(ll.DGL()),
    "MLAAN(DGL)": ll.MLAAN(ll.DGL()),
    "ImageNetAugLocal": ll.AugLocal.imagenet(depth=4),
    "SequentialAugLocal": ll.SequentialAugLocal(depth=4),
    "RepetitiveAugLocal": ll.RepetitiveAugLocal(depth=4),
    "ConvolutionalAugLocal": ll.ConvolutionalAugLocal(depth=4),
    "ImageNetInfoPro": ll.ImageNetInfoPro(),
    "InfoPro, contrastive": ll.InfoPro.original(),
    "InfoProLoss(DGL)": ll.InfoProLoss(ll.DGL()),
}


ABOUT = f"""Made by `python benchmarks/networks.py`: every network under every rule, in 8 local modules; ResNets of
bottlenecks in 4. Rules have their defaults, AugLocal depth 4. AugLocal may join the last modules, so that fewer remain.

- Forward MACs: one image through backbone and task heads. Peak: activations of one step of {BATCH} images, times
  backpropagation's. Both are counted without computing (`locallearn.cost`).
- fp32, bf16: one step with two images, of 64 x 64 pixels at most; `ok` means that losses and gradients were finite.
- InfoPro's decoder reconstructs the whole image. At 224 pixels its features are as large as the image, which can take
  more memory than backpropagation; `ImageNetInfoPro` is the form for such images."""


def build(network: str, rule: ll.Rule, size: int) -> ll.LocalNet:
    """The network under a rule; equal weights each time."""
    torch.manual_seed(0)
    classes = 1000 if NETWORKS[network] > 32 else 10
    model = make_model(network, classes=classes, image_shape=(3, size, size))
    return ll.localize(model, rule, modules=modules_of(network), input_shape=(3, size, size))


def costs(network: str, rule: ll.Rule) -> dict[str, Any]:
    """Found without computing."""
    net = build(network, rule, NETWORKS[network])
    return {
        "layers": len(net.chain),
        "modules": len(net.partition),
        "backbone": sum(p.numel() for p in net.model.parameters()),
        "auxiliary": sum(p.numel() for p in net.auxiliary.parameters()),
        "macs": sum(macs.backbone + macs.task_heads for macs in forward_macs(net)),
        "peak": peak_memory(net, BATCH).activations,
    }


def steps(network: str, rule: ll.Rule) -> dict[str, Any]:
    """One real step in each precision; `ok`, or what went wrong."""
    size = min(64, NETWORKS[network])
    net = build(network, rule, size)
    images, labels = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    found = {}
    for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        net.zero_grad()
        try:
            with mixed(images.device, dtype):
                losses = net.backward(images, labels)
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            finite = losses.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
            found[precision] = "ok" if finite else "not finite"
        except (RuntimeError, ValueError) as error:
            found[precision] = str(error).splitlines()[0]
    return found


def measure(network: str, name: str) -> dict[str, Any]:
    """A row: costs and steps, or the sentence with which a combination is refused."""
    begin = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            row = costs(network, RULES[name])
        except ll.LocalLearnError as error:
            return {"refused": str(error)}
        try:
            row |= steps(network, RULES[name])
        except ll.LocalLearnError as error:
            row |= {"fp32": str(error), "bf16": str(error)}
    print(f"{network}, {name}: {row} in {perf_counter() - begin:.0f} s", flush=True)
    return row


def table(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The rows as a page."""
    text = ["# Networks and rules", "", ABOUT, ""]
    refused: dict[str, list[str]] = {}
    for network, found in rows.items():
        first = next(row for row in found.values() if "layers" in row)
        size = NETWORKS[network]
        text += [
            f"## {network}",
            "",
            f"{first['layers']} layers, {first['backbone']:,} parameters, images of {size} x {size} pixels.",
            "",
            "| rule | modules | auxiliary parameters | forward MACs | peak, x BP | fp32 | bf16 |",
            "|---|---:|---:|---:|---:|---|---|",
        ]
        for name, row in found.items():
            if "refused" in row:
                refused.setdefault(row["refused"], []).append(f"{network}, {name}")
                text.append(f"| {name} | | | | | refused | refused |")
                continue
            ratio = row["peak"] / found["BP"]["peak"]
            numbers = f"{row['modules']} | {row['auxiliary']:,} | {row['macs'] / 1e9:.3f} G | {ratio:.2f}"
            text.append(f"| {name} | {numbers} | {row['fp32']} | {row['bf16']} |")
        text.append("")
    if refused:
        text += [
            "## Refused",
            "",
            "These combinations are refused before training, with the reason:",
            "",
        ]
        text += [f"- {'; '.join(places)}: {reason}" for reason, places in refused.items()]
        text.append("")
    return "\n".join(text)


def ordered(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows in the order of this file, of networks that have any."""
    return {
        network: {name: rows[network][name] for name in RULES if name in rows[network]}
        for network in NETWORKS
        if "BP" in rows.get(network, {})
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--rules", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    chosen = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for network in NETWORKS:
        for name in RULES:
            wanted = any(fnmatch(network, p) for p in chosen.networks) and any(fnmatch(name, p) for p in chosen.rules)
            if wanted and (chosen.again or name not in rows.get(network, {})):
                rows.setdefault(network, {})[name] = measure(network, name)
                write_whole(RESULTS, (json.dumps(rows, indent=1) + "\n").encode())
    write_whole(TABLE, table(ordered(rows)).encode())


if __name__ == "__main__":
    main()
