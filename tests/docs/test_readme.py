"""The README's five lines run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

README = (Path(__file__).parents[2] / "README.md").read_text()
(FIVE_LINES,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_five_lines_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,)))
    (tmp_path / "five_lines.py").write_text(
        "from five_lines_around import loader, make_optimizer\n"
        + FIVE_LINES.replace("for images", "optimizer = make_optimizer(net.parameters())\nfor images")
    )
    (tmp_path / "five_lines_around.py").write_text("loader = make_optimizer = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import five_lines_around as around  # pyright: ignore[reportMissingImports]

    around.loader = DataLoader(data, batch_size=4)
    around.make_optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)
    import five_lines  # pyright: ignore[reportMissingImports]

    assert five_lines.losses.shape == (13,)
    assert five_lines.logits.shape == (4, 10)


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"\nmake {command}" in README
        assert f"\n{command}:" in makefile
