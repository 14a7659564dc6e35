"""The training loop from Python: any loader, stepping, clipping, heads, compilation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from recorded_work import recorded
from small_runs import assert_equal_runs, little, loop_of, settings, stripes, timeless
from torch.utils.data import DataLoader, TensorDataset

import locallearn as ll
from locallearn._engine.cuda_graphs import CapturedSteps
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn.data import LoaderBatches
from locallearn.training import (
    SGD,
    Fit,
    FitSettings,
    Interrupted,
    RunFolder,
    Watcher,
    evaluate,
    fit as fit_module,
    load_checkpoint,
    train,
)


def loader(train: bool) -> DataLoader:
    split = stripes(Path()).train if train else stripes(Path()).test
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 80 - 1.5
    return DataLoader(TensorDataset(images, torch.from_numpy(split.labels)), batch_size=20, shuffle=train)


def fit(folder: Path | None = None, watcher: Watcher | None = None, rule: ll.Rule | None = None) -> Fit:
    torch.manual_seed(0)
    net = ll.localize(little(3, 3), rule or ll.DGL(hidden=1), input_shape=(3, 12, 12))
    chosen = FitSettings(epochs=3, optimizer=SGD(lr=0.05))
    run = RunFolder(folder) if folder else None
    return Fit(net, LoaderBatches(loader(True)), LoaderBatches(loader(False)), chosen, folder=run, watcher=watcher)


def test_a_users_loader_trains():
    rows = fit().run()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["test_accuracy"] > 0.9


def test_a_users_loader_resumes_bit_for_bit(tmp_path):
    class Stop(Watcher):
        steps = 0

        def stop_requested(self) -> bool:
            self.steps += 1
            return self.steps == 8

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    fit(tmp_path / "whole").run()
    with pytest.raises(Interrupted):
        fit(tmp_path / "parts", watcher=Stop()).run()
    rest = fit(tmp_path / "parts")
    rest.resume()
    rest.run()
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "parts")
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt")["net"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("changes", [{}, {"clip_module_norm": 0.5}, {"accumulate": 2}], ids=str)
def test_stepping_each_module_at_once_gives_the_same_bits(changes, tmp_path):
    loop_of(settings(**changes), tmp_path / "together").run()
    loop_of(settings(**changes, step="module"), tmp_path / "module").run()
    assert_equal_runs(tmp_path / "together", tmp_path / "module")


@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
def test_modules_are_clipped_each_by_its_own_norm(kind):
    net = fit().net
    free, clipped = ([], [])

    def remember(into):
        def make(parameters):
            optimizer = torch.optim.SGD(parameters, lr=0.0)
            optimizer.register_step_pre_hook(
                lambda o, *_: into.extend(p.grad.clone() for group in o.param_groups for p in group["params"])
            )
            return optimizer

        return make

    images, labels = next(iter(loader(False)))
    for into, clip in ((free, None), (clipped, 0.01)):
        torch.manual_seed(1)
        stepper = kind(net, remember(into), clip_module_norm=clip)
        net.backward(images, labels, on_complete=stepper.on_complete)
        stepper.finish()
    owners = {id(p): module for module in range(len(net.partition)) for p in net.parameters_of(module)}
    order = [p for optimizer in stepper.optimizers for group in optimizer.param_groups for p in group["params"]]
    for module in range(len(net.partition)):
        mine = [i for i, p in enumerate(order) if owners[id(p)] == module]
        norm = torch.stack([free[i].norm() for i in mine]).norm()
        assert norm > 0.01
        for i in mine:
            torch.testing.assert_close(clipped[i], free[i] * 0.01 / norm, rtol=1e-4, atol=1e-7)


def test_the_whole_gradient_can_be_clipped():
    net = fit().net
    norms = []

    def make(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        optimizer.register_step_pre_hook(
            lambda o, *_: norms.append(torch.stack([p.grad.norm() for p in o.param_groups[0]["params"]]).norm())
        )
        return optimizer

    stepper = Stepper(net, make, clip_norm=0.1)
    net.backward(*next(iter(loader(False))), on_complete=stepper.on_complete)
    stepper.finish()
    assert norms[0] == pytest.approx(0.1, rel=1e-3)
    assert all(p.grad is None for p in net.parameters())


def test_heads_are_evaluated_on_request_and_modes_are_put_back():
    trained = fit()
    trained.run()
    trained.net.model[1].eval()
    modes = [part.training for part in trained.net.modules()]
    result = evaluate(trained.net, LoaderBatches(loader(False)), heads=True)
    assert [part.training for part in trained.net.modules()] == modes
    assert len(result.head_accuracies) == len(trained.net.objectives)
    assert result.head_accuracies[-1] == result.accuracy
    trained.net.eval()
    hits = images_seen = 0
    with torch.no_grad():
        for images, labels in loader(False):
            hits += int((trained.net(images).argmax(1) == labels).sum())
            images_seen += len(labels)
    assert result.accuracy == pytest.approx(hits / images_seen)


def test_a_line_that_a_kill_left_unfinished_is_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(1)
    folder.add_epoch({"epoch": 1})
    with open(folder.metrics, "a") as file:
        file.write('{"epoch": 2, "tr')
    assert folder.rows() == [{"epoch": 1}]
    folder.begin(2)
    folder.add_epoch({"epoch": 2})
    assert folder.rows() == [{"epoch": 1}, {"epoch": 2}]


def test_a_single_image_left_over_is_left_out_and_told(tmp_path):
    told: list[str] = []
    train(settings(train_images=65, epochs=1), tmp_path / "dgl", say=told.append)
    assert len(told) == 1
    assert "the auxiliary network of local module 0 needs several" in told[0]
    told.clear()
    train(settings(train_images=65, epochs=1, rule=ll.BP()), tmp_path / "bp", say=told.append)
    assert told == []


@pytest.mark.parametrize(
    "changes", [{"train_images": 1}, {"batch": 97, "accumulate": 2}, {"batch": 4, "accumulate": 4}]
)
def test_batches_of_a_single_image_are_refused_before_training(changes, tmp_path):
    with pytest.raises(ll.LocalLearnError, match=r"(has one|leaves a single) image.*, but the auxiliary network"):
        train(settings(**changes), tmp_path / "run")


def test_a_captured_run_is_that_of_plain_steps(monkeypatch):
    monkeypatch.setattr(fit_module, "CapturedSteps", partial(CapturedSteps, record=recorded))
    rows = []
    for captured in (False, True):
        torch.manual_seed(0)
        net = ll.localize(little(3, 3), ll.DGL(hidden=1), input_shape=(3, 12, 12))
        chosen = FitSettings(epochs=3, optimizer=SGD(lr=0.05), cuda_graphs=captured)
        epochs = Fit(net, LoaderBatches(loader(True)), LoaderBatches(loader(False)), chosen).run()
        rows.append([{name: value for name, value in row.items() if name != "seconds"} for row in epochs])
    assert rows[0] == rows[1]


def test_capturing_is_refused_without_a_gpu_before_a_folder_is_made(tmp_path):
    with pytest.raises(ll.LocalLearnError, match="needs a CUDA GPU"):
        train(settings(cuda_graphs=True, device="cpu"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ll.LocalLearnError, match="one batch at a time"):
        settings(cuda_graphs=True, accumulate=2)
