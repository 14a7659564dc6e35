"""What a person is told who mistypes a command."""

from __future__ import annotations

import json

import pytest
from command_line import run


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
        ("train --data digits --train-images 0", "train_images=0 must be at least 1"),
        (
            "train --data digits --model resnet20 --rule dgl --batch 1",
            "a batch has one image, but the auxiliary network",
        ),
        ("train --data digits --train-images 5000", "there are 1,438 training images"),
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
        ("train --data digits --rule auglocal(depth=zwei)", "error: --rule.depth: 'zwei' is not a whole number."),
        ("train --rule man(auglocal(fidelity=papr))", "error: --rule.rule.fidelity: 'papr' is not valid; did you mean"),
        ("compare --rules bp auglocal(depth=zwei)", "auglocal(depth=zwei): rule.depth: 'zwei' is not a whole number."),
        ("train --rule dgl(biass=true)", "unknown setting 'biass'; did you mean 'bias'?"),
        ("train --rule.foo 3", "unknown setting 'foo'; known: depth, fidelity, narrow, tau."),
        ("train --learning-rate 0.1", "--learning_rate; did you mean locallearn train --optimizer.lr 0.1?"),
        ("train --wd=0.1", "--wd; did you mean locallearn train --optimizer.weight_decay=0.1?"),
        ("train --opt sgd", "unknown option --opt; did you mean 'optimizer'?"),
        ("train --gpu 0", "unknown option --gpu; did you mean 'device'?"),
        ("compare --rule dgl", "unknown option --rule; did you mean 'rules'?"),
        ("cost --epochs 3", "unknown option --epochs; see --help."),
        ("train -e 3", "unknown option -e; see --help."),
        ("train digits", "unknown word 'digits'; no option before it takes it: see --help."),
        ("train --modules", "--modules needs a value: see --help."),
        ("compare --rules", "--rules needs a value: see --help."),
        ("export", "RUN and --out are missing: see --help."),
        ("analyze cka RUN", "--against is missing: see --help."),
        ("reproduce hpff/table3 --budget tiny", "--budget: 'tiny' is not valid; known: full, small, smoke."),
        ("reproduce hpff/table4a --budget small --lr -1", "--lr -1 must be a finite number above 0."),
        ("reproduce hpff/table4a --budget small --lr 1 --runs nothing", "--runs nothing is no folder: give folders"),
        ("reproduce hpff/table3 --runs .", "--runs goes with --budget: without one nothing is trained."),
        (
            "reproduce hpff/table3 --save /dev/null",
            "/dev/null cannot be made (File exists): choose another",
        ),
        ("reproduce auglocal/table12", "no costs in these rows, and reproduce does not train them: run locallearn"),
        ("reproduce man/table4b", "prints no costs in these rows: train them by --budget full."),
        ("reproduce auglocal/table9 --rows predsim", "does not train them: no rule adds similarity matching"),
        (
            "train --recipe hpff/table1/cifar10-resnet32-hpff-dgl --print_config --rule.depth 3",
            "unknown setting 'depth'; only these have it: auglocal, ",
        ),
        ("cost --picture picture.mp3", "picture.mp3: a picture's name must end in one of .eps, "),
        ("cost --picture nowhere/picture.png", "cannot be written, since nowhere is no folder: make it first."),
        ("plan --plot . --memory 1GiB", ": a picture's name must end in one of .eps, "),
        ("train --rule dgl(hidden=64", "cannot read 'dgl(hidden=64': a closing bracket is missing."),
        ("compare --rules hilo(dgl))", "cannot read 'hilo(dgl))': it has a closing bracket too many."),
        ("compare --rules bp,dgl", "it names more than one rule: give one; compare takes several, separated by spaces"),
        ("train --optimizer sgd,adamw", "cannot read 'sgd,adamw': it names more than one optimizer: give one."),
        ("train --data digits --model resnet21", "unknown model 'resnet21'; did you mean 'resnet20'?"),
        ("train --loggers wandb", "--loggers: 'wandb' is not a list: write it as [wandb]."),
        ("list models extra", "none of the models has 'extra' in its name; known: cifar-efficientnet-b0, "),
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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: fast", "mine.yaml: epochs: 'fast' is not a whole number."),
        ("epocs: 3", "unknown setting 'epocs' in the file of settings; did you mean 'epochs'?"),
        ("rule: {class_path: locallearn.DGL, init_args: {bias: 3}}", "mine.yaml: rule.bias: '3' is not true or false."),
        ("rule: dgl", "mine.yaml: rule: 'dgl' is no dotted path of a class, as locallearn.DGL is."),
    ],
)
def test_a_wrong_setting_in_a_file_names_both(text, sentence, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert run("train", "--config", str(tmp_path / "mine.yaml")) in (1, 2)
    assert sentence in capsys.readouterr().err


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
