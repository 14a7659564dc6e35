"""The page, as HTML alone; `make browser-test` opens it in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from report_pages import Page
from report_runs import change, copies, groups, made, read, runs

from locallearn import LocalLearnError
from locallearn.report import FIGURES, record_steps, write_page


@pytest.fixture(scope="module", autouse=True)
def _steps():
    record_steps(groups())  # counted once, then read from the run folders


@cache
def text() -> str:
    path = made() / "report.html"
    write_page(runs(), path)
    return path.read_text()


@cache
def page() -> Page:
    return Page(text())


def test_the_page_is_well_formed_with_one_heading_of_each_level_below_the_next():
    (html,) = page().root.all("html")
    assert html.attributes["lang"] == "en"
    levels = [int(tag) for tag in re.findall(r"<h([1-4])[ >]", text())]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [value for _, value in re.findall(r'<(\w+)[^>]* id="([^"]*)"', text())]
    assert len(ids) == len(set(ids))
    targets = [link.attributes["href"][1:] for link in page().root.all("a") if "href" in link.attributes]
    assert set(targets) <= set(ids)
    labels = re.findall(r'aria-labelledby="([^"]*)"', text())
    assert set(labels) <= set(ids)


def test_every_figure_has_a_text_a_caption_a_picture_for_print_and_its_data():
    figures = [figure for figure in page().root.all("figure") if figure.all("script")]
    assert len(figures) == len({figure.attributes["id"] for figure in figures}) == 16
    for figure in figures:
        (picture,), (data,) = figure.all("img"), figure.all("script")
        assert picture.attributes["src"].startswith("data:image/png;base64,iVBOR")
        assert len(picture.attributes["alt"]) > 30
        assert figure.all("figcaption")[0].words
        assert figure.all("a")[0].attributes["download"].endswith(".png")
        assert json.loads(data.text)["data"]
    assert all(picture.attributes["alt"] for picture in page().root.all("img"))


def test_every_table_has_a_caption_and_headings():
    tables = page().root.all("table")
    assert len(tables) == 4
    for table in tables:
        assert table.all("caption")[0].words
        columns = table.all("thead")[0].all("th")
        assert all(column.attributes["scope"] == "col" for column in columns)
        for row in table.all("tbody")[0].all("tr"):
            assert row.all("th")[0].attributes["scope"] == "row"
            assert len(row.all("th") + row.all("td")) == len(columns)


def test_the_page_loads_nothing_from_elsewhere():
    for tag, name, value in re.findall(r"<(\w+)[^>]*? (src|href)=\"([^\"]*)\"", text()):
        assert value.startswith(("data:", "#")), (tag, name)
    assert "default-src 'none'" in text()
    style = page().root.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style


def test_the_summary_has_mean_and_deviation_of_seeds_and_ratios_to_bp():
    rows = page().root.all("table")[0].all("tbody")[0].all("tr")
    dgl = groups()[1]
    assert rows[1].words.startswith("dgl(hidden=1)")
    assert f"{dgl.accuracy.mean * 100:.2f} ± {dgl.accuracy.deviation * 100:.2f} %" in rows[1].words
    assert "seeds 0, 1" in rows[1].words
    assert re.search(r"\d\.\d\d x BP", rows[1].words)
    assert "x BP" not in rows[0].words


def test_settings_versions_and_commands_are_there():
    words = page().root.words
    assert "locallearn train --config" in words
    assert "train_images" in words
    assert "torch" in words


def test_colours_of_texts_have_a_contrast_of_4_5():
    style = (Path(__file__).parents[3] / "src/locallearn/report/templates/page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for ink in ("text", "muted", "accent"):
            for ground in ("page", "card", "accent-soft"):
                if (ink, ground) != ("muted", "accent-soft"):
                    assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_names_of_a_run_folder_are_text_and_no_tags(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    (path,) = copies(tmp_path, "bp")
    change(path / "environment.json", lambda value: value | {"repeat": evil, "versions": {evil: evil}, "device": evil})
    (run,) = read(path)
    out = tmp_path / "report.html"
    hostile = replace(run, settings=replace(run.settings, model=evil, data=evil))
    write_page([hostile], out, only=["accuracy-epoch", "output-loss"])
    found = Page(out.read_text())
    assert "onerror=alert(1)>" not in out.read_text()
    assert [picture.attributes["src"][:14] for picture in found.root.all("img")] == ["data:image/png"] * 2
    assert found.root.all("h1")[0].words == f"{evil} on {evil}: 1 run"
    assert evil in found.root.all("code")[0].words


def test_only_the_figures_that_are_asked_for_are_made(tmp_path):
    out, figures = tmp_path / "report.html", tmp_path / "figures"
    assert write_page(runs(), out, only=["learning-rate"], figures=figures) == ["learning-rate"]
    assert sorted(file.name for file in figures.iterdir()) == [
        f"learning-rate.{kind}" for kind in ("pdf", "png", "svg")
    ]
    assert len(Page(out.read_text()).root.all("figure")) == 1


def test_numbered_figures_of_more_runs_are_replaced(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("schedule-9.png", "cka-map-9.png"):
        (figures / name).touch()
    write_page(runs()[:1], tmp_path / "report.html", only=["schedule"], figures=figures)
    assert {file.stem for file in figures.iterdir()} == {"schedule-0", "cka-map-9"}


def test_the_page_has_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        write_page(runs()[:1], tmp_path / name, only=["output-loss"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_wrappers_may_be_compared_on_several_data_sets(tmp_path):
    mixed = [*runs(), *read(made() / "dgl", data="cifar10"), *read(made() / "hilo", data="cifar10")]
    out = tmp_path / "report.html"
    with pytest.raises(LocalLearnError, match="given twice"):
        write_page(mixed, out)
    other = [*runs()[:2], *read(*copies(tmp_path, "dgl", "hilo"), data="cifar10")]
    with pytest.raises(LocalLearnError, match="choose --only wrappers"):
        write_page(other, out)
    assert not out.exists()
    assert write_page(other, out, only=["wrappers"]) == ["wrappers"]
    assert "cifar10" in Page(out.read_text()).root.all("table")[0].words


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "is a folder: give the name of a file"), ("none/report.html", "is no folder: make it first")],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, name, sentence):
    told: list[str] = []
    with pytest.raises(LocalLearnError, match=sentence):
        write_page(runs(), tmp_path / name, say=told.append)
    assert told == []


def test_a_folder_of_figures_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LocalLearnError, match=r"file cannot be made .*: choose another one by --figures"):
        write_page(runs(), tmp_path / "report.html", figures=tmp_path / "file")


def test_an_unknown_figure_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(LocalLearnError, match=r"only='memroy' is not valid; did you mean 'memory'\?"):
        write_page(runs(), tmp_path / "report.html", only=["memroy"])


def test_all_figures_are_named_in_the_documentation():
    words = (Path(__file__).parents[3] / "docs" / "report.md").read_text()
    assert all(f"`{name}`" in words for name in FIGURES)
