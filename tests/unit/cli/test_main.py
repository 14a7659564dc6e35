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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train --rule auglocl", "unknown rule 'auglocl'; did you mean 'auglocal'?"),
        ("train --rule=dlg", "unknown rule 'dlg'; did you mean 'dgl'?"),
        ("train --model resnt32 --data digits", "unknown model 'resnt32'; did you mean 'resnet32'?"),
        ("train --model nowhere.net --data digits", "model 'nowhere.net' cannot be imported"),
        ("train --data cifar11", "unknown data set 'cifar11'; did you mean 'cifar10'?"),
        ("train --data cifar10 --data-dir nothing", "run locallearn data get cifar10"),
        ("train --rule.dept 3", "unknown setting 'dept'; did you mean locallearn train --rule.depth 3?"),
        ("train --lr 0.01 --rule dgl", "--lr; did you mean locallearn train --rule dgl --optimizer.lr 0.01?"),
        ("detect --lr=0.01", "did you mean locallearn detect --optimizer.lr=0.01?"),
        ("train --epochs 1 --depth 4", "did you mean locallearn train --epochs 1 --rule.depth 4?"),
        ("train --rule man(auglocal) --depth 4", "train --rule 'man(auglocal)' --rule.rule.depth 4?"),
        ("train --optimizer.depth 4", "did you mean locallearn train --rule.depth 4?"),
        ("train --schedule paper-cosine --warmup-epochs 4", "--schedule.warmup_epochs 4?"),
        ("train --rule dgl --depth 4", "unknown option --depth; only these have it: auglocal, "),
        ("train --data digits --rule.depth 1", "AugLocal: depth=1"),
        ("train --data digits --rule.depth deep", "depth: 'deep' is not a whole number"),
        ("train --optimizer.lr fast", "lr: 'fast' is not a number"),
        ("train --data digits --model os.getcwd", "model 'os.getcwd' is no function as it must be"),
        ("train --data os.getcwd", "data set 'os.getcwd' is no function as it must be"),
        ("train --data digits --out /dev/null", "the folder /dev/null cannot be made"),
        ("data get", "NAME is missing"),
        ("train --data digits --rule.fidelity papr", "'papr' is not valid; did you mean 'paper'?"),
        ("train --optimizer sdg", "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("train --schedule cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("train --step modul", "--step: 'modul' is not valid; did you mean 'module'?"),
        ("train --precision fp16", "'fp16' is not valid"),
        ("train --epochz 3", "unknown option --epochz; did you mean 'epochs'?"),
        ("train --data digits --model resnet.32!", "cannot be imported"),
        ("train --seed -1", "seed=-1 must be at least 0"),
        ("train --epochs 0", "epochs=0 must be at least 1"),
        ("train --batch 0", "batch=0 must be at least 1"),
        ("train --threads 0", "threads=0 must be at least 1"),
        ("train --clip-norm 1 --step module", "use clip_module_norm"),
        ("train --data digits --modules 99", "the network has 16 layers, so K must be from 1 to 16"),
        ("train --data digits --modules layr1.*", "no layer matches 'layr1.*'; did you mean"),
        ("train --data digits --modules hpff-55", "split 'hpff-55' is for resnet110"),
        ("train --data digits --train-images 5000", "there are 1438 training images"),
        ("train --data digits --device gpu", "unknown device 'gpu'"),
        (
            "train --data digits --model resnet20 --rule bp --overlap 1 --device cpu",
            "overlap=1 needs a CUDA GPU, but the device is cpu: leave it out.",
        ),
        ("train --resume nothing", "nothing holds no run"),
        ("train --config nothing.yaml", "nothing.yaml"),
        ("compare --rules bp dglx", "unknown rule 'dglx'; did you mean 'dgl'?"),
        ("compare --rules dgl(hiden=1)", "unknown setting 'hiden'; did you mean 'hidden'?"),
        ("compare --rules dgl(hidden)", "write settings as dgl(name=value, ...)"),
        ("cost --image 32", "write channels, height and width, as in 3x32x32"),
        ("cost --batch 0", "--batch must be at least 1"),
        ("cost --batch 1000000000000000000000", "has more pixels than any memory holds"),
        ("cost --image 3x999999999x9999999", "has more pixels than any memory holds"),
        ("cost --classes 999999999999", "--classes 999999999999: at most 16,777,216 are possible"),
        ("train --data digits --image-size 99999999", "image_size=99999999 must be at most 16384"),
        (f"train --data digits --model resnet20 --rule bp --out {'a' * 300}", "File name too long"),
        (f"train --resume {'a' * 300}", "File name too long"),
        (f"train --data {'a' * 300}", "File name too long"),
        ("train --threads x", "--threads: 'x' is not a whole number."),
        ("train --clip-norm a", "--clip_norm: 'a' is not a number."),
        ("train --rule [] --data digits", "cannot read '[]': write settings as auglocal(name=value, ...)"),
        ("train --rule man(man(man(man(man(man(dgl))))))", "brackets nest at most 5 deep"),
        ("train --seed 4294967296", "seed=4294967296 must be at least 0 and below 2**32"),
        ("data get cifar", "did you mean 'cifar10'?"),
        ("data get svhnn", "did you mean 'svhn'?"),
        ("data get svhn --from nothing", "nothing cannot be read (No such file or directory); --from takes"),
        ("train --data svhn", "run locallearn data get svhn"),
        ("train --data ./nothing", "there is no folder nothing for a data set"),
        ("train --data imagenet", "locallearn data get imagenet tells how to get it"),
        ("train --workers -1", "workers=-1 must not be negative"),
        ("train --image-size 0", "image_size=0 must be at least 1"),
        ("train --bad-images skp", "'skp' is not valid; did you mean 'skip'?"),
        ("evaluate nothing", "nothing holds no run"),
        ("frobnicate", "unknown command 'frobnicate'"),
        ("compare --format html", "unknown --format 'html'; known: csv, latex, markdown, table."),
        ("data gett digits", "unknown command 'gett'; did you mean 'get'?"),
        ("train --freeze stem --freeze=layer1.0", "--freeze is given twice, and the last alone would count"),
        ("train --data-dir a --data_dir b", "--data-dir is given twice"),
        ("report -o a -o b RUN", "-o is given twice"),
        ("train --resume RUN --print_config", "leave out --resume; RUN/settings.yaml has that run's"),
        ("detect --resume RUN --epochs 9 --print_config", "leave out --resume; RUN/settings.yaml has that run's"),
    ],
)
def test_a_mistake_gets_one_sentence_and_no_traceback(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments.split()) in (1, 2)
    told = capsys.readouterr().err
    assert sentence in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is written before the error"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")], ids=str)
def test_memory_that_runs_out_anywhere_is_one_sentence(error, capsys, monkeypatch):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("locallearn.cli.commands.list.run", fail)
    assert run("list") == 1
    assert capsys.readouterr().err.startswith("error: memory ran out: take smaller or fewer images")


def test_an_invalid_settings_file_is_named(capsys, tmp_path):
    (tmp_path / "damaged.yaml").write_text("epochs: [")
    assert run("train", "--config", str(tmp_path / "damaged.yaml")) == 1
    told = capsys.readouterr().err
    assert "damaged.yaml is damaged: it is no YAML (while parsing" in told
    assert told.count("\n") == 1


def test_a_file_is_no_folder_of_images(capsys, tmp_path, monkeypatch):
    (tmp_path / "f.txt").write_text("hi")
    monkeypatch.chdir(tmp_path)
    for path in ("f.txt", "./f.txt"):
        assert run("train", "--data", path) == 1
        assert "f.txt is a file, not a folder: lay images out as" in capsys.readouterr().err


def test_an_error_is_json_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--data", "digits", "--modules", "99", "--json") == 1
    assert "K must be from 1 to 16" in json.loads(capsys.readouterr().out)["error"]


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
    assert "leave out --batch" in capsys.readouterr().err


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
    assert all(text for names in found.values() for text in names.values())
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
