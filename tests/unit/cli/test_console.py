"""What the command line prints while it works."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from locallearn.cli import console
from locallearn.cli.console import ConsoleWatcher


def test_without_a_terminal_a_line_each_minute_says_how_far_training_is(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(console, "monotonic", lambda: now)
    watcher = ConsoleWatcher("dgl", 3, batch=100)
    for step in range(1, 11):  # one each 30 s: 3.3 images a second
        watcher.batch(epoch=2, step=step, steps=10, loss=0.5)
        now += 30.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "dgl  epoch 2/3, step 3 of 10, loss 0.500, 3 images/s, 0:08:30 to go"
    assert [line.split(",")[1] for line in lines] == [f" step {step} of 10" for step in (3, 5, 7, 9)]


def test_brackets_and_colons_are_text_everywhere(monkeypatch, capsys):
    text = "runs/cmp[x] [bold]:smile:[/x]"
    console.say(text)
    assert capsys.readouterr().err == f"{text}\n"
    terminal = StringIO()
    options = console.TEXT_ONLY
    monkeypatch.setattr(console, "err", Console(file=terminal, force_terminal=True, width=120, **options))
    with console.work() as tell:
        tell(text)
    with console.progress() as watch:
        watch(text, 0, 2)
    assert terminal.getvalue().count("[x] [bold]:smile:[/x]") >= 2
