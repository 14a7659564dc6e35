"""The command line as a person and as a machine use it."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest
import yaml
from command_line import result_of, run
from small_runs import timeless

from locallearn._figures.style import FORMATS

SMALL = ["--model", "small_runs.little", "--data", "small_runs.stripes", "--batch", "32", "--optimizer.lr", "0.05"]


@pytest.mark.parametrize("command", [(), ("train",), ("compare",), ("cost",), ("data",), ("list",), ("evaluate",)])
def test_help_teaches_by_examples(command, capsys):
    assert run(*command, "--help") == 0
    told = capsys.readouterr().out
    assert "locallearn" in told
    assert "Traceback" not in told


def test_the_version_is_told(capsys):
    import locallearn

    assert run("--version") == 0
    assert locallearn.__version__ in capsys.readouterr().out


def test_a_folder_with_other_files_is_not_filled(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run("train", *SMALL, "--out", str(tmp_path)) == 1
    assert "holds other files: choose a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_takes_no_other_settings(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert run("train", *SMALL, "--rule", "bp", "--epochs", "1", "--out", out) == 0
    assert run("train", "--resume", out, "--batch", "3") == 1
    told = capsys.readouterr().err
    assert "leave out --batch; only --epochs, " in told
    assert re.search("--data-dir, --workers, .*which change no result", told)


def test_help_of_a_rule_shows_its_settings(capsys):
    assert run("train", "--rule.help", "auglocal") == 0
    told = capsys.readouterr().out
    assert re.search(r"--rule.depth.*layers with weights of the deepest auxiliary", told)


def test_train_from_one_command_and_again_from_its_settings(capsys, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    result = result_of(
        capsys, "train", *SMALL, "--rule", "auglocal", "--rule.depth", "2", "--epochs", "2", "--out", first
    )
    assert result["epochs"] == 2
    assert result["auxiliary_parameters"] > 0
    again = result_of(capsys, "train", "--config", f"{first}/settings.yaml", "--trust-code", "--out", second)
    assert timeless(tmp_path / "first") == timeless(tmp_path / "second")
    assert again["test_accuracy"] == result["test_accuracy"]


def test_settings_can_be_changed_on_top_of_a_file(capsys, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    result_of(capsys, "train", "--optimizer", "adamw", *SMALL, "--rule", "dgl", "--epochs", "1", "--out", first)
    result = result_of(
        capsys, "train", "--config", f"{first}/settings.yaml", "--trust-code", "--epochs", "2", "--out", second
    )
    assert result["epochs"] == 2


def test_choosing_a_class_takes_its_own_defaults(tmp_path, capsys):
    assert run("train", "--optimizer", "adamw", "--print_config") == 0
    told = capsys.readouterr().out
    assert "lr: 0.001" in told
    assert "weight_decay: 0.01" in told


@pytest.mark.parametrize("command", ["train", "compare", "detect"])
def test_what_print_config_prints_is_a_file_for_config(command, tmp_path, capsys):
    assert run(command, "--epochs", "3", "--print_config") == 0
    (tmp_path / "settings.yaml").write_text(printed := capsys.readouterr().out)
    assert "epochs: 3" in printed
    again = ("--config", str(tmp_path / "settings.yaml"))
    assert run(command, *again, *again, "--print_config") == 0, "of several files, the last one wins"
    assert capsys.readouterr().out == printed


def test_the_names_of_hundreds_of_modules_are_read(capsys):
    names = [
        f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(200)
    ]  # of ResNet-1202, as plan prints them
    assert run("train", "--modules", json.dumps(names), "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["modules"] == names


def test_every_setting_survives_the_settings_file(tmp_path, capsys):
    options = (
        "--rule dgl(hidden=1,bias=True) --optimizer adamw --optimizer.lr 0.05 --optimizer.beta2 0.99 "
        "--schedule paper-cosine "
        "--schedule.warmup-epochs 1 --modules 2 --accumulate 2 --step module --clip-module-norm 2.0 --precision bf16 "
        "--eval-heads true --seed 3 --channels-last false --train-images 90 --epochs 1 --checkpoint-every 2"
    )
    assert run("train", *SMALL[:-2], *options.split(), "--out", str(tmp_path / "run")) == 0
    from locallearn.cli.settings import read_settings
    from locallearn.rules import DGL
    from locallearn.training import AdamW, PaperCosine, RunFolder, TrainSettings

    settings = read_settings(TrainSettings, RunFolder(Path(tmp_path / "run")))
    assert settings.rule == DGL(hidden=1, bias=True)
    assert settings.optimizer == AdamW(lr=0.05, beta2=0.99)
    assert settings.schedule == PaperCosine(warmup_epochs=1)
    assert (settings.modules, settings.accumulate, settings.step) == (2, 2, "module")
    assert (settings.clip_module_norm, settings.precision, settings.eval_heads) == (2.0, "bf16", True)
    assert (settings.seed, settings.channels_last, settings.train_images) == (3, False, 90)
    assert settings.checkpoint_every == 2


def test_compare_puts_rules_and_seeds_side_by_side(capsys, tmp_path):
    out = tmp_path / "compare"
    rules = ["bp", "dgl(hidden=1)"]
    arguments = ["compare", *SMALL, "--epochs", "2", "--rules", *rules, "--seeds", "2", "--out", str(out)]
    results = result_of(capsys, *arguments)
    assert list(results) == rules
    bp, dgl = results["bp"], results["dgl(hidden=1)"]
    assert dgl["seeds"] == [0, 1]
    assert dgl["test_accuracy"] == pytest.approx(statistics.fmean(dgl["test_accuracies"]))
    assert dgl["test_accuracy_deviation"] == pytest.approx(statistics.stdev(dgl["test_accuracies"]))
    assert dgl["points_behind_bp"] == pytest.approx(100 * (bp["test_accuracy"] - dgl["test_accuracy"]))
    assert dgl["peak_activation_bytes"] < bp["peak_activation_bytes"]
    curves = {"accuracy-epoch", "output-loss", *(f"module-losses-{rule}" for rule in range(2))}
    assert {file.name for file in (out / "figures").iterdir()} == {f"{c}.{f}" for c in curves for f in FORMATS}
    assert json.loads((out / "compare.json").read_text()) == results

    assert run(*arguments) == 0, "again: nothing is left to do but the table"
    table = capsys.readouterr().out
    assert all(text in table for text in (*rules, "test accuracy", "behind BP, points", "seeds 0, 1"))
    assert run(*arguments, "--accumulate", "2") == 1
    assert "holds a run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rules", "dgl", "dgl()"], "--rules dgl and dgl() are one rule: leave one out."),
        (["--seeds", "1", "1"], "--seeds 1 1 names a seed twice: leave one out."),
        (
            ["runs/A", "--epochs", "3"],
            "run folders are compared as they are: leave out --epochs, or give no run folder",
        ),
        (["runs/A"], "runs/A holds no run"),
    ],
)
def test_what_compare_refuses(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("compare", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_cost_stands_beside_bp_and_checkpointing(capsys):
    found = result_of(capsys, "cost", "--model", "resnet32", "--rule", "dgl", "--batch", "16")
    assert list(found) == ["BP", "Checkpoint", "DGL"]
    assert found["DGL"]["backbone_parameters"] == 466_906
    assert found["DGL"]["auxiliary_parameters"] == 6 * 9_962 + 5 * 37_834 + 4 * 147_338
    peaks = [found[name]["peak"]["activations"] for name in ("DGL", "Checkpoint", "BP")]
    assert peaks == sorted(peaks)
    assert run("cost", "--model", "resnet20", "--batch", "4", "--by-module", "--step", "module") == 0
    assert "layer3.2" in capsys.readouterr().out


def test_cost_of_micro_batches_divides_activations_and_keeps_gradients(capsys):
    small = ["cost", "--model", "small_runs.little", "--image", "3x8x8", "--rule", "dgl", "--batch", "16"]
    whole, cut = (result_of(capsys, *small, *more)["DGL"] for more in ([], ["--accumulate", "4"]))
    assert cut["peak"]["activations"] == pytest.approx(whole["peak"]["activations"] / 4, rel=0.05)
    gradients = 4 * (cut["backbone_parameters"] + cut["auxiliary_parameters"])
    assert cut["peak"]["total"] - cut["peak"]["activations"] > 3 * gradients  # and parameters, and momentum
    assert cut["step_macs"] == whole["step_macs"]
    assert run(*small, "--accumulate", "4") == 0
    assert "4 micro-batches" in capsys.readouterr().out
    for count, sentence in (
        ("0", "accumulate=0 must be at least 1"),
        ("17", "--accumulate 17: a batch of 16 has no more parts than images"),
        ("16", "a batch of 16 images in 16 parts leaves a single image in one, but"),
    ):
        assert run(*small, "--accumulate", count) == 1
        assert sentence in capsys.readouterr().err


def test_list_names_everything(capsys):
    found = result_of(capsys, "list")
    assert {"bp", "checkpoint", "dgl", "dgl-original", "auglocal"} <= found["rules"].keys()
    assert {"resnet20", "resnet32", "resnet44", "resnet56", "resnet110"} <= found["models"].keys()
    assert {"digits", "cifar10", "cifar100", "svhn", "stl10", "imagenet"} <= found["data"].keys()
    assert {"infopro-16", "hpff-55"} <= found["modules"].keys()
    assert found["optimizers"]["sgd"].startswith("Stochastic gradient descent")
    assert all(text and "--trust-code" not in text for names in found.values() for text in names.values())
    assert run("list") == 0
    assert "resnet110" in capsys.readouterr().out


def test_a_rule_in_the_users_own_file_works_by_its_path(tmp_path):
    import subprocess
    import sys

    (tmp_path / "mine.py").write_text("import locallearn as ll\n\n\nclass Mine(ll.BP):\n    pass\n")
    script = Path(sys.executable).with_name("locallearn")
    done = subprocess.run(
        [script, "cost", "--rule", "mine.Mine", "--model", "resnet20", "--batch", "2", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Mine" in json.loads(done.stdout)


def test_digits_need_no_download(capsys, tmp_path):
    assert run("data", "get", "digits", "--data-dir", str(tmp_path)) == 0
    assert "scikit-learn" in capsys.readouterr().err


def test_a_diverging_run_names_module_and_step(capsys, tmp_path):
    arguments = ["train", *SMALL[:-2], "--rule", "dgl", "--optimizer.lr", "1e20", "--out", str(tmp_path / "run")]
    assert run(*arguments) == 1
    told = capsys.readouterr().err
    assert re.search(
        r"error: the loss of objective \d+ \(local module \d+\) is (nan|inf) at step \d+; nothing was stepped", told
    )


def test_a_full_disk_is_told_in_a_sentence(capsys, tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr("locallearn.training.files.run_folder.RunFolder.add_epoch", full)
    assert run("train", *SMALL, "--epochs", "1", "--rule", "bp", "--out", str(tmp_path / "run")) == 1
    assert "error: metrics.jsonl: No space left on device" in capsys.readouterr().err
