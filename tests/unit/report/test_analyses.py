"""Results of analyses in run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import LAYERS, copies, groups, made

from locallearn import LocalLearnError
from locallearn._utils.hashed_json import write_hashed_json
from locallearn.report import probes, similarity_by_layer, similarity_maps
from locallearn.report.analyses import picture_for_page, read_analyses


def test_probes_and_similarities_of_a_run_are_read():
    found = read_analyses(made() / "dgl")
    assert found.probes is not None
    assert found.probes.accuracy == (0.5, 0.75, 0.875)
    assert list(found.similarities) == [made() / "bp"]
    assert found.similarities[made() / "bp"].per_layer.tolist() == [1.0, 0.75, 0.625]
    assert [path.name for path in found.pictures] == ["tsne-8.png"]


def test_a_run_without_analyses_has_none():
    found = read_analyses(made() / "hilo")
    assert (found.probes, found.similarities, found.pictures) == (None, {}, ())


@pytest.mark.parametrize("damage", ["byte", "not hashed", "no accuracy", "short", "no list", "no number"])
def test_a_damaged_analysis_is_named_with_what_to_do(tmp_path, damage):
    (run,) = copies(tmp_path, "dgl")
    file = run / "analysis" / "probes.json"
    value = json.loads(file.read_text())
    value.pop("content_sha256")
    if damage == "byte":
        file.write_text(file.read_text().replace("0.75", "0.76"))
    elif damage == "not hashed":
        file.write_text(json.dumps(value))
    elif damage == "no accuracy":
        write_hashed_json(file, {"layers": LAYERS, "heads": {}})
    else:
        wrong = {"short": [0.5], "no list": 1, "no number": ["a", "b", "c"]}[damage]
        write_hashed_json(file, value | {"accuracy": wrong})
    with pytest.raises(LocalLearnError, match=r"probes.json is damaged.*[Dd]elete it, or run locallearn analyze on"):
        read_analyses(run)


def test_a_picture_that_is_none_is_refused(tmp_path):
    file = tmp_path / "run" / "analysis" / "tsne-8.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x89PNG no picture")
    with pytest.raises(LocalLearnError, match=r"tsne-8.png is damaged: it is no picture"):
        picture_for_page(file)


def test_a_picture_becomes_small(tmp_path):
    from PIL import Image

    Image.new("RGB", (3000, 1000)).save(tmp_path / "a.png")
    (tmp_path / "a.webp").write_bytes(picture_for_page(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.webp") as image:
        assert image.size == (1400, 467)


def test_probes_are_lines_and_heads_open_circles():
    chart = probes(groups())
    assert chart is not None
    (line,), (heads,) = chart.lines, chart.points
    assert (line.label, line.x, line.y) == ("dgl(hidden=1)", (1.0, 2.0, 3.0), (0.5, 0.75, 0.875))
    assert (heads.x, heads.y) == ((1,), (0.25,))
    assert chart.x_names == tuple(LAYERS)
    assert probes(groups()[:1]) is None


def test_similarities_name_the_other_run_by_its_label():
    (chart,) = similarity_by_layer(groups()).values()
    assert chart.title == "Similarity to bp, layer by layer"
    assert chart.lines[0].y == (1.0, 0.75, 0.625)
    ((name, heat_map),) = similarity_maps(groups()).items()
    assert name == "dgl(hidden=1) and bp"
    assert heat_map.matrix[0] == (1.0, 0.5, 0.25)


def test_networks_of_different_layers_have_a_matrix_alone(tmp_path):
    (run,) = copies(tmp_path, "dgl")
    matrix = [[0.5, None], [0.25, 0.5], [0.1, 0.2]]
    write_hashed_json(
        run / "analysis" / "cka-vs-bp.json",
        {"against": "runs/bp", "layers": LAYERS, "against_layers": ["a", "b"], "per_layer": None, "matrix": matrix},
    )
    ((against, found),) = read_analyses(run).similarities.items()
    assert against == Path("runs/bp")
    assert len(found.per_layer) == 0
    assert np.isnan(found.matrix[0, 1])


def test_a_damaged_similarity_is_named(tmp_path):
    (run,) = copies(tmp_path, "dgl")
    wrong = {"against": "runs/bp", "layers": LAYERS, "against_layers": ["a"], "per_layer": None, "matrix": [[0.5]]}
    write_hashed_json(run / "analysis" / "cka-vs-bp.json", wrong)
    with pytest.raises(LocalLearnError, match=r"cka-vs-bp.json is damaged"):
        read_analyses(run)
