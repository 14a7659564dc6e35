"""What the command line prints while it works."""

from __future__ import annotations

from functools import partial
from io import StringIO

import pytest
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


def test_the_line_of_an_epoch_is_one_line_however_long(capsys):
    heads = {"head_accuracies": [0.5] * 40}
    ConsoleWatcher("dgl", 3, batch=100).epoch({"epoch": 1, "train_loss": 0.5, "seconds": 1.0} | heads)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("50.0%") == 40


@pytest.mark.parametrize("terminal", [True, False])
def test_no_name_of_a_table_is_broken(terminal, monkeypatch, capsys):
    monkeypatch.setattr(console, "Console", partial(Console, force_terminal=terminal, width=40))
    name, label = "a-name-of-one-word" * 3, "a label of several words"
    console.show("names", ("name", "text"), [(name, "of many words " * 20)] * 2, texts=2)
    console.show("labels", ("label", "text"), [(label, "of many words " * 20)])
    out = capsys.readouterr().out
    assert out.count(name) == 2
    assert (label in out) != terminal, "between words it is, where there is little space"


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
