"""A run tested on its own images and on those of a data set with other classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import settings
from tiny_images import shards_from, tree
from two_sets import large, small

import locallearn as ll
from locallearn import LocalLearnError
from locallearn._engine.local_net import LocalNet
from locallearn.cli.main import main
from locallearn.data import shared_classes
from locallearn.training import RunFolder, TrainSettings, build, evaluate_run, load_checkpoint, train

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def asked(**changes) -> TrainSettings:
    return settings(**({"data": "two_sets.small", "rule": ll.BP(), "epochs": 6} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(asked(), folder)
    return folder


def logits(folder: Path, images: torch.Tensor) -> torch.Tensor:
    net = build(asked(), small(folder))
    net.load_state_dict(load_checkpoint(folder / "last.pt")["net"])
    with torch.no_grad():
        return net.eval()((images - 120.0) / 80.0)


def test_nine_classes_of_cifar10_and_stl10_are_the_same():
    shared = shared_classes(STL10, CIFAR10)
    assert {STL10[a]: CIFAR10[b] for a, b in shared.items()} == {
        **{name: name for name in STL10 if name not in ("car", "monkey")},
        "car": "automobile",
    }
    assert shared_classes(CIFAR10, STL10) == {b: a for a, b in shared.items()}


def test_names_are_equal_whatever_their_case_and_spaces():
    assert shared_classes(("pickup truck", "Car"), ("Automobile", "pickup_truck", "car-pet")) == {0: 1, 1: 0}


def test_its_own_test_images_give_what_training_gave(folder):
    found = evaluate_run(folder, asked())
    last = RunFolder(folder).rows()[-1]
    assert found.accuracy == found.shared_accuracy == last["test_accuracy"]
    assert (found.images, found.left_out, found.never_right) == (40, {}, {})
    assert found.classes == {name: name for name in ("automobile", "bird", "frog")}
    best = evaluate_run(folder, asked(), checkpoint="best")
    assert best.accuracy == max(row["test_accuracy"] for row in RunFolder(folder).rows())


def test_heads_are_tested_on_request(tmp_path, capsys):
    heads = asked(rule=ll.DGL(hidden=1), epochs=1, eval_heads=True)
    train(heads, tmp_path / "dgl")
    row = RunFolder(tmp_path / "dgl").rows()[-1]
    found = evaluate_run(tmp_path / "dgl", heads, heads=True)
    assert list(found.head_accuracies) == [f"module {index}" for index in range(len(row["losses"]))]
    assert list(found.head_accuracies.values()) == row["head_accuracies"]
    assert evaluate_run(tmp_path / "dgl", heads).head_accuracies == {}
    assert main(["evaluate", str(tmp_path / "dgl"), "--heads", "--trust-code"]) == 0
    assert "module 0" in capsys.readouterr().out


def test_other_images_are_resized_normalised_as_the_runs_and_mapped_by_name(folder, monkeypatch):
    seen: list[torch.Tensor] = []
    forward = LocalNet.forward
    monkeypatch.setattr(LocalNet, "forward", lambda net, images: seen.append(images) or forward(net, images))
    found = evaluate_run(folder, asked(), data="two_sets.large")
    monkeypatch.undo()
    other = large(folder)
    images = torch.from_numpy(other.test.images).permute(0, 3, 1, 2).float()
    images = F.interpolate(images, (12, 12), mode="bilinear", antialias=True).round()
    assert torch.allclose(torch.cat(seen), (images - 120.0) / 80.0, atol=1e-6)
    answers, labels = logits(folder, images), torch.from_numpy(other.test.labels)
    known = labels != 2
    truth = torch.where(labels == 0, 1, 0)[known]
    assert found.images == int(known.sum())
    assert found.accuracy == pytest.approx(float((answers.argmax(1)[known] == truth).double().mean()), abs=1e-12)
    assert found.shared_accuracy == pytest.approx(
        float((answers[:, :2].argmax(1)[known] == truth).double().mean()), abs=1e-12
    )
    assert found.left_out == {"monkey": int((labels == 2).sum())}
    assert found.never_right == {"frog": int((answers.argmax(1)[known] == 2).sum())}
    assert found.classes == {"Bird": "bird", "car": "automobile"}
    for index, name in enumerate(("Bird", "car")):
        mine = labels == index
        expected = float((answers.argmax(1)[mine] == 1 - index).double().mean())
        assert found.class_accuracies[name] == pytest.approx(expected, abs=1e-12)
    assert found.accuracy > 0.8, "stripes twice as wide are the same at half the size"


def test_answers_that_no_test_image_has_count_as_wrong(folder, monkeypatch):
    def frogs(images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 1.0, 9.0]).expand(len(images), 3)

    monkeypatch.setattr(LocalNet, "forward", lambda net, images: frogs(images))
    found = evaluate_run(folder, asked(), data="two_sets.large")
    assert found.accuracy == 0
    assert found.never_right == {"frog": found.images}
    birds = int((large(folder).test.labels == 0).sum())
    assert found.shared_accuracy == birds / found.images


def test_images_in_files_can_be_tested_on(folder, tmp_path):
    images = tree(tmp_path / "set", bad=())
    for split in ("train", "val"):
        for before, after in (("ant", "automobile"), ("bee", "bird"), ("cow", "cow")):
            (images / split / before).rename(images / split / after)
    (images / "val" / "bird" / "000.jpg").write_bytes(b"")
    found = evaluate_run(folder, asked(bad_images="skip", workers=0), data=str(images))
    assert (found.images, found.left_out) == (7, {"cow": 4})
    assert found.skipped[0].startswith(str(images / "val" / "bird" / "000.jpg"))


def test_bad_images_are_left_out_of_a_test_on_the_command_line(folder, tmp_path, capsys):
    images = tree(tmp_path / "set", bad=())
    for split in ("train", "val"):
        for before, after in (("ant", "automobile"), ("bee", "bird"), ("cow", "cow")):
            (images / split / before).rename(images / split / after)
    (images / "val" / "bird" / "000.jpg").write_bytes(b"")
    given = ["evaluate", str(folder), "--trust-code", "--data", str(images)]
    assert main(given) == 1
    assert "leave such images out with --bad-images skip" in capsys.readouterr().err
    assert main([*given, "--bad-images", "skip", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[str(folder)]["skipped"]) == 1


def test_the_runs_own_images_need_not_be_there_to_test_on_others(folder, tmp_path):
    expected = evaluate_run(folder, asked(), data="two_sets.large")
    gone = asked(data="two_sets.gone")
    assert evaluate_run(folder, gone, data="two_sets.large", data_dir=tmp_path) == expected
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "data.json").unlink()  # then the run's own folder of data sets is read
    seen: list[Path] = []
    spied = asked(data="two_sets.small", data_dir=tmp_path / "own")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("two_sets.small", lambda root: seen.append(root) or small(root))
        assert evaluate_run(run, spied, data="two_sets.large", data_dir=tmp_path / "other") == expected
    assert seen == [tmp_path / "own"]
    with pytest.raises(LocalLearnError, match=r"two_sets\.gone"):
        evaluate_run(run, gone, data="two_sets.large")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("epochs: 6", "epochs: [", "settings.yaml is damaged: it is no YAML"),
        ("epochs: 6", "epochs: six", "settings.yaml: epochs: 'six' is not a whole number"),
        ("epochs: 6", "epoch: 6", "settings.yaml: unknown setting 'epoch'"),
        ("model: small_runs.little", "source: a", "holds no run of locallearn train: its settings name no model"),
        ("model: small_runs.little", "model: resnet20", "last.pt do not fit resnet20: has its code changed?"),
    ],
)
def test_damaged_runs_are_told_with_their_file(folder, tmp_path, capsys, before, after, told):
    run = shutil.copytree(folder, tmp_path / "run")
    settings = (run / "settings.yaml").read_text()
    assert before in settings
    (run / "settings.yaml").write_text(settings.replace(before, after))
    for command in (["evaluate", str(run), "--trust-code"], ["train", "--resume", str(run), "--trust-code"]):
        assert main(command) == 1
        sentence = capsys.readouterr().err.splitlines()[-1]
        assert told.replace("resnet20", "the network" if command[0] == "train" else "resnet20") in sentence


def test_data_sets_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(LocalLearnError, match=r"two_sets.strangers \(automobile, pear, plum\) and .* share 1 class"):
        evaluate_run(folder, asked(), data="two_sets.strangers")
    with pytest.raises(LocalLearnError, match=r"takes images of 3 x 12 x 12, but two_sets.grey has 1 x 12 x 12"):
        evaluate_run(folder, asked(), data="two_sets.grey")
    with pytest.raises(LocalLearnError, match="share 0 classes by name"):
        evaluate_run(folder, asked(workers=0), data=str(shards_from(tree(tmp_path / "set"), tmp_path / "shards")))
    with pytest.raises(LocalLearnError, match="is missing"):
        evaluate_run(tmp_path, asked())


def test_one_command_tests_several_runs(folder, capsys, tmp_path):
    again = shutil.copytree(folder, tmp_path / "again")
    assert main(["evaluate", str(folder), str(again), "--trust-code", "--data", "two_sets.large"]) == 0
    out = capsys.readouterr()
    monkeys = int((large(folder).test.labels == 2).sum())
    for text in ("tested on two_sets.large", "among shared classes", "BP, small_runs.little"):
        assert text in out.out  # not the paths: long ones are wrapped in their column
    assert "shares 2 classes by name: Bird = bird, car = automobile." in out.err
    assert f"monkey: the network does not know this class; left out: {monkeys} images." in out.err
    assert "frog: not a class of the test images; the network answered it " in out.err
    assert main(["evaluate", str(folder), "--trust-code", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[str(folder)]
    assert found["accuracy"] == RunFolder(folder).rows()[-1]["test_accuracy"]
    assert main(["evaluate", str(folder), "--trust-code"]) == 0
    assert "shared" not in capsys.readouterr().out


@pytest.mark.filterwarnings("always::locallearn.LocalLearnWarning")
def test_what_is_said_of_a_data_set_is_said_once_for_all_runs(folder, capsys, tmp_path):
    again = shutil.copytree(folder, tmp_path / "again")
    assert main(["evaluate", str(folder), str(again), "--trust-code", "--data", "two_sets.doubtful"]) == 0
    assert capsys.readouterr().err.count("note: these are not the published images") == 1


def test_mistakes_are_told_in_a_sentence(folder, capsys, tmp_path):
    for arguments, told in (
        (["evaluate", str(tmp_path)], "holds no run"),
        (["evaluate", str(folder), "--data", "cifar11"], "unknown data set 'cifar11'; did you mean 'cifar10'?"),
        (["evaluate", str(folder), "--data", "stl10", "--data-dir", str(tmp_path)], "run locallearn data get stl10"),
        (["evaluate"], "RUNS is missing"),
        (["evaluate", str(folder), "--checkpoint", "lats"], "'lats' is not valid; did you mean 'last'?"),
    ):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        assert code in (1, 2)
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_the_global_random_state_is_of_no_account(folder):
    torch.manual_seed(int(np.random.default_rng(5).integers(100)))
    one = evaluate_run(folder, asked(), data="two_sets.large")
    torch.rand(3)
    assert evaluate_run(folder, asked(), data="two_sets.large") == one
