"""torchvision is imported where its compiled operators do not fit, and where it is missing that is told."""

import subprocess
import sys

import pytest

import locallearn as ll
from locallearn._torch import vision_libraries
from locallearn._utils import optional_imports


def test_its_models_and_transforms_work():
    code = (
        "import locallearn as ll, torch\n"
        "torchvision = ll.models.import_torchvision()\n"
        "assert ll.models.import_torchvision() is torchvision\n"
        "import timm\n"
        "from torchvision import datasets, transforms\n"
        "from torchvision.transforms import v2\n"
        "print(tuple(v2.RandomCrop(2)(torch.zeros(3, 4, 4)).shape))\n"
        "print(tuple(torchvision.models.resnet18(num_classes=3).eval()(torch.zeros(1, 3, 32, 32)).shape))\n"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["(3, 2, 2)", "(1, 3)"]


def test_where_it_is_missing_the_line_that_brings_it_is_told(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(optional_imports, "import_module", missing)
    vision_libraries.import_torchvision.cache_clear()
    try:
        with pytest.raises(
            ll.LocalLearnError, match=r"torchvision is not installed: run pip install 'locallearn\[vision\]'"
        ):
            ll.models.import_torchvision()
    finally:
        vision_libraries.import_torchvision.cache_clear()


def test_names_that_are_no_network_are_no_attributes():
    with pytest.raises(AttributeError, match="resnet33"):
        ll.models.resnet33  # noqa: B018
