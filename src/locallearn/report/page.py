"""One self-contained page of HTML that compares runs."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Collection, Sequence
from functools import cache
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import locallearn
from locallearn._figures.style import as_bytes, remove_earlier, save_all
from locallearn._utils.atomic_files import write_whole
from locallearn._utils.errors import refuse_unknown
from locallearn._utils.optional_imports import optional
from locallearn._utils.outputs import make_folder, refuse_unwritable
from locallearn._utils.quantities import counted
from locallearn.report.analyses import picture_for_page
from locallearn.report.charts.chart import Chart
from locallearn.report.groups import Group, group_runs
from locallearn.report.runs import Run, names_of, refuse_same_folder
from locallearn.report.sections import ACROSS_DATA, FIGURES, OF_STEPS, sections_of
from locallearn.report.steps import Say, record_steps
from locallearn.report.tables import settings_in_common, settings_that_differ, summary, versions
from locallearn.training import refuse_other_data

_DIGITS = 6


def write_page(
    runs: Sequence[Run],
    path: Path,
    *,
    only: Collection[str] = (),
    figures: Path | None = None,
    say: Say = lambda _: None,
) -> list[str]:
    """Write a page that compares runs; it needs no other file, no server and no network.

    Args:
        runs: from `read_run`.
        path: the file.
        only: names of figures to make (`FIGURES`); all by default.
        figures: a folder for each figure as PNG, SVG and PDF; none by default.
        say: told what is done.

    Returns:
        Names of the figures on the page.

    Raises:
        LocalLearnError: runs are on different data, a file is damaged, or the page cannot be written.
    """
    for name in only:
        refuse_unknown("only", name, tuple(FIGURES))
    refuse_unwritable(path, "report.html")
    if figures is not None:
        make_folder(figures, "--figures")
    refuse_same_folder(runs)
    wanted = set(only or FIGURES)
    if not wanted <= ACROSS_DATA:
        refuse_other_data(runs, remedy="give the runs of one data set, or choose --only wrappers")
    groups = group_runs(runs)
    steps = record_steps(groups, say=say) if wanted & OF_STEPS else {}
    sections = sections_of(groups, steps, only=wanted)
    say("drawing the figures")
    if figures is not None:
        remove_earlier([chart.name for one in sections for chart in one.all_charts], figures)
    charts = {chart.name: _chart_for_page(chart, figures) for one in sections for chart in one.all_charts}
    pictures = _pictures(groups) if "pictures" in wanted else []
    names = names_of([run.path for run in runs])
    page = _template().render(
        title=_title(runs, groups),
        tables={"summary": summary(groups, steps), "versions": versions(runs), "common": settings_in_common(runs)}
        | {"different": settings_that_differ(runs)},
        sections=sections,
        charts=charts,
        pictures=pictures,
        commands=[(n, str(run.environment.get("repeat", ""))) for n, run in zip(names, runs, strict=True)],
        version=locallearn.__version__,
        plotly=_plotly_code() if charts else "",
        **{part: _asset(f"page.{part}") for part in ("css", "js")},
    )
    write_whole(path, page.encode())
    return [*charts, *(name for name, _ in pictures)]


def _title(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    data = ", ".join(dict.fromkeys(run.settings.data for run in runs))
    models = ", ".join(dict.fromkeys(run.settings.model for run in runs))
    return f"{models} on {data}: {counted(len(runs), 'run')}" + (
        f", {counted(len(groups), 'setting')}" if len(groups) != len(runs) else ""
    )


def _chart_for_page(chart: Chart, figures: Path | None) -> dict[str, Any]:
    figure = chart.print_figure()
    if figures is not None:
        save_all(figure, figures / chart.name)
    spec = json.loads(optional("plotly.io", extra="analysis").to_json(chart.plotly_figure(), validate=False))
    spec["layout"].pop("template", None)  # the page has colours of its own
    png = b64encode(_smaller_png(as_bytes(figure, "png"))).decode()
    return {"chart": chart, "spec": _rounded(spec), "png": png}


def _smaller_png(content: bytes) -> bytes:
    """The same picture in 256 colours, a third of the size."""
    pillow, memory = optional("PIL.Image"), BytesIO()
    with pillow.open(BytesIO(content)) as image:
        dpi = image.info.get("dpi")
        image.convert("RGB").quantize(256).save(memory, "PNG", optimize=True, **({"dpi": dpi} if dpi else {}))
    return memory.getvalue()


def _rounded(value: Any) -> Any:
    """The same values with as many digits as a picture shows."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return {name: _rounded(part) for name, part in value.items()} if isinstance(value, dict) else value


def _pictures(groups: Sequence[Group]) -> list[tuple[str, list[dict[str, str]]]]:
    """Pictures of analyses by name, such as `tsne-layer3`: run, file, and content."""
    found = [(file.stem, group.label, file) for group in groups for run in group.runs for file in run.analyses.pictures]
    found.sort(key=lambda entry: entry[0])
    return [
        (
            name,
            [
                {"label": label, "file": str(file), "webp": b64encode(picture_for_page(file)).decode()}
                for _, label, file in own
            ],
        )
        for name, own in groupby(found, key=lambda entry: entry[0])
    ]


@cache
def _plotly_code() -> str:
    """plotly.js, compressed, as text."""
    code = optional("plotly.offline", extra="analysis").get_plotlyjs()
    return b64encode(gzip.compress(code.encode(), 9, mtime=0)).decode()


@cache
def _template() -> Any:
    jinja = optional("jinja2", extra="analysis")
    loader = jinja.FileSystemLoader(_FOLDER)
    environment = jinja.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.undefined = jinja.StrictUndefined
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html")


def _breakable(text: str) -> Any:
    """A text as HTML, which may be broken where brackets open."""
    markup = optional("markupsafe", extra="analysis")
    return markup.Markup(str(markup.escape(text)).replace("(", "(<wbr>"))


_FOLDER = Path(__file__).parent / "templates"


@cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
