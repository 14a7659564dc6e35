"""`locallearn analyze`, as a person and as a machine use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from analysed_runs import runs as runs, trained as trained
from command_line import result_of, run
from matplotlib.image import imread

FORMATS = ("png", "svg", "pdf")


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def figure(name: str) -> set[str]:
    return {f"{name}.{kind}" for kind in FORMATS}


def test_cka_writes_numbers_heat_maps_and_curves(runs, capsys):
    shutil.copytree(runs / "dgl", runs / "copy")
    result = result_of(capsys, "analyze", "cka", str(runs / "dgl"), str(runs / "copy"), "--against", str(runs / "bp"),
                       "--trust-code")  # fmt: skip
    assert result["runs"]["dgl"]["per_layer"] == result["runs"]["copy"]["per_layer"]
    assert len(result["runs"]["dgl"]["matrix"]) == 3
    assert files(runs / "copy" / "analysis") == {"cka-vs-bp.json", *figure("cka-vs-bp")}
    assert files(runs / "dgl" / "analysis") == {"cka-vs-bp.json", *figure("cka-vs-bp"), *figure("cka-layers-vs-bp")}
    assert set(result["figures"]) == {
        *(str(runs / "dgl" / "analysis" / name) for name in figure("cka-vs-bp") | figure("cka-layers-vs-bp")),
        *(str(runs / "copy" / "analysis" / name) for name in figure("cka-vs-bp")),
    }
    assert run("analyze", "cka", str(runs / "dgl"), "--against", str(runs / "bp"), "--trust-code") == 0
    out, err = capsys.readouterr()
    assert "dgl with bp" in out
    assert "wrote" in err
    assert "CKA of dgl and bp" not in err, "answered from the file"


def test_probes_as_a_table_and_a_figure_of_one_column(runs, capsys):
    arguments = ["analyze", "probes", str(runs / "bp"), str(runs / "dgl"), "--epochs", "1", "--trust-code"]
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert "dgl, own head" in out
    assert "linear probes of bp" in err
    height, width, _ = imread(runs / "bp" / "analysis" / "probes.png").shape
    assert width == pytest.approx(3.4 * 300, abs=2)
    assert height < width
    text = (runs / "bp" / "analysis" / "probes.svg").read_text()
    assert all(word in text for word in ("test accuracy", "layer", ">bp<", ">dgl<", "own head"))


def test_t_sne_goes_to_another_folder_of_figures_on_demand(runs, capsys, tmp_path):
    result = result_of(capsys, "analyze", "tsne", str(runs / "dgl"), str(runs / "bp"), "--perplexity", "8",
                       "--target", "columns", "--out", str(tmp_path / "new" / "figures"), "--trust-code")  # fmt: skip
    layer = result["runs"]["bp"]["layer"]
    assert result["runs"]["bp"]["images"] == 40
    assert files(tmp_path / "new" / "figures") == figure(f"tsne-{layer}")
    assert files(runs / "dgl" / "analysis") == {f"tsne-{layer}.json"}


def test_features_of_several_layers(runs, capsys):
    layers = ["0", "4"]
    result = result_of(capsys, "analyze", "features", str(runs / "dgl"), str(runs / "bp"), "--layer", *layers,
                       "--images", "3", "5", "--channels", "2", "--trust-code")  # fmt: skip
    assert len(result["runs"]["dgl"]["files"]) == 2
    assert files(runs / "bp" / "analysis") == {f"features-{layer}.json" for layer in layers}
    assert figure(f"features-{layers[0]}") < files(runs / "dgl" / "analysis")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("cak bp", "unknown command 'cak'; did you mean 'cka'?"),
        ("", "give one of cka, probes, tsne, features"),
        ("cka dgl", "--against is missing"),
        ("cka nothing --against bp", "nothing holds no run"),
        ("cka dgl --against nothing", "nothing holds no run"),
        ("cka dgl --against bp --images 3", "images=3: unbiased CKA needs at least 4 images"),
        ("cka dgl --against bp --images many", "'many' is not a whole number"),
        ("probes dgl --checkpoint first", "'first' is not valid"),
        ("probes dgl --images 1", "images=1 for 3 classes"),
        ("tsne dgl --layer 40", "has no layer '40'; did you mean '4'?"),
        ("tsne dgl --images 2", "2 images for 3 classes"),
        ("tsne dgl", "a perplexity of 30 is too much for 40 images"),
        ("tsne dgl --target row", "has no class 'row'; did you mean 'rows'?"),
        ("features dgl --layer 0 --images 99", "give numbers of test images from 0 to 39"),
        ("features dgl", "--layer is missing"),
        ("probes dgl --device gpu", "unknown device 'gpu'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert run("analyze", *arguments.split(), "--trust-code") in (1, 2)
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("error:") == 1
    assert not (runs / "dgl" / "analysis").exists()


def test_a_damaged_result_is_computed_again_and_the_user_is_told(runs, capsys):
    arguments = ["analyze", "probes", str(runs / "dgl"), "--epochs", "1", "--trust-code"]
    first = result_of(capsys, *arguments)
    file = runs / "dgl" / "analysis" / "probes.json"
    file.write_text(file.read_text().replace('"layers"', '"layer"'))
    assert run(*arguments, "--json") == 0
    out, err = capsys.readouterr()
    assert f"{file} is damaged: it is computed again." in err
    assert json.loads(out) == first


def test_code_that_only_a_file_names_is_not_imported(runs, capsys):
    assert run("analyze", "probes", str(runs / "dgl")) == 1
    assert "add --trust-code" in capsys.readouterr().err
