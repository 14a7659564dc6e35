"""docs/results/large-images.md is the page that benchmarks/large_images.py makes of its results."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("large_images_script", ROOT / "benchmarks" / "large_images.py")
script = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = script  # where dataclasses look for their module
SPEC.loader.exec_module(script)
RESULTS = json.loads(script.RESULTS.read_text())


def test_the_page_is_made_of_the_results():
    written = script.PAGE.read_text()
    assert written == script.page(RESULTS, script.text_of(written))


@pytest.mark.slow
def test_a_row_is_as_counted_today():
    setting = script.Setting(rule=script.HEADS)
    assert script.measure("resnet50", setting, "fp32") == RESULTS["resnet50"][setting.key]["fp32"]
