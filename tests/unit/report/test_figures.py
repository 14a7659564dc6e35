"""The papers' figures from run folders."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from statistics import stdev

import pytest
from report_runs import groups, made, read, runs

import locallearn as ll
from locallearn.report import (
    HeatMap,
    LineChart,
    StepRecord,
    accuracy_against_epoch,
    accuracy_against_tau,
    accuracy_against_time,
    accuracy_memory_time,
    group_runs,
    learning_rate,
    memory_over_step,
    module_losses,
    output_loss,
    savings_against_tau,
    schedules,
    wrappers,
    write_curves,
)


def step(**changes) -> StepRecord:
    values = {"seconds": (0.0, 1.0), "activations": (0, 2**20), "phases": (), "modules": 3, "spans": ()}
    return StepRecord(**(values | {"macs": 60, "macs_without_pyramid": 80} | changes))


def test_accuracy_against_epoch_is_that_of_the_metrics():
    bp, dgl, _ = accuracy_against_epoch(groups()).lines
    assert bp.x == (1, 2)
    assert bp.y == tuple(row["test_accuracy"] for row in runs()[0].rows)
    assert not bp.low
    both = [[row["test_accuracy"] for row in run.rows] for run in runs()[1:3]]
    assert dgl.y == pytest.approx([sum(values) / 2 for values in zip(*both, strict=True)])
    deviations = [stdev(values) for values in zip(*both, strict=True)]
    for edge, sign in ((dgl.low, -1), (dgl.high, 1)):
        assert edge == pytest.approx([y + sign * own for y, own in zip(dgl.y, deviations, strict=True)])


def test_a_band_of_losses_stays_above_zero():
    """Of a logarithmic axis; 0.01 and 1 have the mean 0.505 and the deviation 0.7."""
    both = [
        replace(run, rows=tuple(row | {"train_loss": loss} for row in run.rows))
        for run, loss in zip(runs()[1:3], (0.01, 1.0), strict=True)
    ]
    assert output_loss(group_runs(both)).lines[0].low == (0.01, 0.01)


def test_accuracy_against_time_adds_up_the_seconds():
    chart = accuracy_against_time(groups())
    assert chart.x.label == "training time, s"
    assert chart.lines[0].x == tuple(accumulate(row["seconds"] for row in runs()[0].rows))


@pytest.mark.parametrize(("seconds", "unit"), [(100.0, "min"), (10_000.0, "h")])
def test_the_unit_of_time_suits_the_run(seconds, unit):
    rows = tuple(row | {"seconds": seconds} for row in runs()[0].rows)
    chart = accuracy_against_time(group_runs([replace(runs()[0], rows=rows)]))
    assert chart.x.label == f"training time, {unit}"
    assert chart.lines[0].x[0] == pytest.approx(seconds / {"min": 60, "h": 3600}[unit])


def test_the_output_loss_is_on_a_logarithmic_axis_and_the_learning_rate_is_that_of_the_last_step():
    assert output_loss(groups()).y.log
    assert output_loss(groups()).lines[0].y == tuple(row["train_loss"] for row in runs()[0].rows)
    assert learning_rate(groups()).lines[0].y == tuple(row["lr"] for row in runs()[0].rows)


def test_a_loss_of_zero_makes_the_axis_linear():
    rows = tuple(row | {"train_loss": 0.0} for row in runs()[0].rows)
    assert not output_loss(group_runs([replace(runs()[0], rows=rows)])).y.log


def test_each_module_has_its_loss_named_by_the_modules_of_its_objective():
    hilo = groups()[2]
    count = len(runs()[3].rows[0]["losses"])
    spans = (*((i, i) for i in range(count - 1)), (1, 2))
    charts = module_losses(groups(), {hilo.label: spans})
    chart = charts[hilo.label]
    assert isinstance(chart, LineChart)
    assert chart.lines[-1].label == "modules 1 to 2"
    assert [line.y[0] for line in chart.lines] == runs()[3].rows[0]["losses"]
    unnamed = module_losses(groups(), {})[hilo.label]
    assert isinstance(unnamed, LineChart)
    assert [line.label for line in unnamed.lines] == [f"objective {number}" for number in range(count)]


def test_curves_for_print_name_the_modules_of_cascades_and_replace_those_of_more_runs(tmp_path):
    (tmp_path / "module-losses-3.svg").touch()
    (tmp_path / "schedule-3.svg").touch()
    files = write_curves(groups(), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*(file.name for file in files), "schedule-3.svg"}
    told = "Lines: means over seeds; bands: ± standard deviation."
    curves = {name: (tmp_path / f"{name}.svg").read_text() for name in ("accuracy-epoch", "output-loss")}
    assert all(told in curve for curve in curves.values())
    assert accuracy_against_epoch(groups()).caption.endswith(told)
    hilo = (tmp_path / "module-losses-2.svg").read_text()
    assert all(words in hilo for words in ("module 1", "module 2", "modules 0 to 1", "modules 1 to 2"))
    assert "module 0<" not in hilo


def test_losses_of_many_modules_are_a_heat_map():
    rows = tuple(row | {"losses": [float(i) for i in range(20)]} for row in runs()[0].rows)
    (chart,) = module_losses(group_runs([replace(runs()[0], rows=rows)]), {}).values()
    assert isinstance(chart, HeatMap)
    assert len(chart.matrix) == 20
    assert chart.matrix[3] == (3.0, 3.0)
    assert chart.first_row == 0  # modules are counted from 0, as in the names of lines


def test_bubbles_have_memory_accuracy_and_time():
    chart = accuracy_memory_time(groups(), {})
    assert chart is not None
    first = chart.bubbles[0]
    assert first.x == runs()[0].result["peak_activation_bytes"] / 2**20
    assert first.y == runs()[0].accuracy
    assert first.size == groups()[0].seconds.mean


def test_an_unfinished_run_takes_its_memory_from_the_step():
    (group,) = group_runs([replace(runs()[0], result={})])
    assert accuracy_memory_time([group], {}) is None
    chart = accuracy_memory_time([group], {group.label: step()})
    assert chart is not None
    assert chart.bubbles[0].x == 1.0


def test_memory_and_schedule_are_those_of_the_steps():
    bp = groups()[0]
    assert memory_over_step(groups(), {}) is None
    chart = memory_over_step(groups(), {bp.label: step()})
    assert chart is not None
    assert chart.lines[0].y == (0.0, 1.0)
    assert list(schedules(groups(), {bp.label: step()})) == [bp.label]


def with_rules(*rules: ll.Rule, data: str = "digits") -> list:
    run = read(made() / "dgl", data=data)[0]
    return [replace(run, settings=replace(run.settings, rule=rule)) for rule in rules]


def test_methods_stand_alone_and_in_wrappers_with_a_panel_for_each_data_set():
    rules = (ll.BP(), ll.DGL(), ll.HiLo(ll.DGL()), ll.HiLo(ll.MAN(ll.DGL())), ll.PredSim())
    chart = wrappers(group_runs([*with_rules(*rules), *with_rules(*rules[:3], data="cifar10")]))
    assert chart is not None
    digits, cifar = chart.panels
    assert (digits.title, digits.categories) == ("digits", ("dgl", "predsim"))
    assert [bars.label for bars in digits.bars] == ["alone", "hilo", "hilo(man)"]
    assert [bars.values[1] is None for bars in digits.bars] == [False, True, True]
    assert cifar.categories == ("dgl",)
    assert [bars.values[0] is None for bars in cifar.bars] == [False, False, True]
    assert digits.reference is not None
    assert chart.print_figure().axes[1].get_title() == "cifar10"
    assert len(chart.plotly_figure().data) == 5


def test_backpropagation_of_other_epochs_has_a_panel_of_its_own():
    short, long = (with_rules(ll.BP(), ll.HiLo(ll.DGL())) for _ in range(2))
    long = [replace(run, settings=replace(run.settings, epochs=5)) for run in long]
    best = replace(long[0], rows=tuple(row | {"test_accuracy": 0.99} for row in long[0].rows))
    chart = wrappers(group_runs([best, *short, long[1]]))
    assert chart is not None
    assert [panel.title for panel in chart.panels] == ["digits, epochs 5", "digits, epochs 2"]
    assert [panel.reference for panel in chart.panels] == [0.99, short[0].accuracy]


def test_settings_of_a_wrapper_are_in_its_name():
    chart = wrappers(group_runs(with_rules(ll.HPFF(ll.DGL(), fidelity="paper"))))
    assert chart is not None
    assert chart.panels[0].bars[1].label == "hpff(fidelity='paper')"


def test_without_a_wrapper_there_are_no_bars():
    assert wrappers(group_runs(with_rules(ll.BP(), ll.DGL()))) is None


def test_accuracy_and_savings_against_tau():
    found = group_runs(with_rules(*(ll.AugLocal(depth=3, tau=tau) for tau in (1.0, 0.0, 0.5)), ll.AugLocal(depth=4)))
    steps = {group.label: step(macs=80 - round(20 * (group.settings.rule.tau))) for group in found}
    accuracy, saved = accuracy_against_tau(found, steps), savings_against_tau(found, steps)
    assert accuracy is not None
    assert saved is not None
    assert [(line.label, line.x) for line in accuracy.lines] == [("auglocal(depth=3)", (0.0, 0.5, 1.0))]
    assert saved.lines[0].y == pytest.approx((0.0, 0.125, 0.25))
    assert accuracy_against_tau(found[:1], steps) is None
