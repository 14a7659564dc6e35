"""`locallearn analyze`: what trained networks learned, as numbers in their run folders and as figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from locallearn._figures.style import save_all
from locallearn._utils.atomic_files import file_name
from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn._utils.outputs import make_folder
from locallearn.analysis import (
    Run,
    cka,
    draw_feature_maps,
    draw_layer_similarity,
    draw_probes,
    draw_similarity,
    draw_tsne,
    feature_maps,
    probes,
    refuse_other_images,
    tsne,
)
from locallearn.analysis.cka import listed
from locallearn.cli.console import progress, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.settings import read_settings
from locallearn.report.runs import names_of
from locallearn.training import RunFolder, TrainSettings

HELP = """See what trained networks learned.

examples:
  locallearn analyze cka runs/DGL runs/AUGLOCAL --against runs/BP   # AugLocal, Fig. 3
  locallearn analyze probes runs/BP runs/DGL                        # AugLocal, Fig. 4
  locallearn analyze tsne runs/DGL runs/HILO --layer layer2.2       # HPFF, Fig. 3
  locallearn analyze features runs/DGL runs/MAN --layer layer1.2 --images 0 7

Numbers lie in RUN/analysis/ and answer the same question again; figures lie beside those of the first run, or in --out.
"""

_KINDS = {
    "cka": """Similarity of all layers to those of another run: linear CKA, unbiased.

The figures are a heat map of all pairs of layers for each run, and, for equal networks, a curve of the layers of equal
names. Beside a local rule, give a run of backpropagation with another seed: it is the fair baseline.""",
    "probes": """Test accuracy of a linear classifier after each layer of the frozen backbone.

Beside it, the accuracy of each local module's own auxiliary head.""",
    "tsne": """Test images in the plane, by t-SNE of the features after a layer.

All classes have colours above; below is one class against the rest.""",
    "features": "Channel maps and Grad-CAM of some test images after a layer.",
}


def parser() -> Parser:
    """The command's parser."""
    return Parser(description=HELP, usage="locallearn analyze cka|probes|tsne|features RUN [RUN ...] [options]")


def add_kinds(parser: Parser) -> None:
    """Add the parsers of the kinds of analysis."""
    kinds = parser.add_subcommands(metavar="KIND")
    parts = {kind: _common(kind, text) for kind, text in _KINDS.items()}
    parts["cka"].add_argument("--against", type=Path, required=True, help="the run to compare with")
    parts["cka"].add_argument("--images", type=int | None, help="test images; by default 10,000 or all")
    parts["probes"].add_argument("--images", type=int | None, help="training images; by default all")
    parts["probes"].add_argument("--epochs", type=int, default=10, help="passes over the training images")
    parts["tsne"].add_argument("--layer", type=str | None, help="name of the layer; by default the last one")
    parts["tsne"].add_argument("--images", type=int | None, help="test images; by default 2,000 or all")
    parts["tsne"].add_argument("--target", type=str | None, help="the one class; by default the first")
    parts["tsne"].add_argument("--perplexity", type=float, default=30.0, help="about how many neighbours an image has")
    parts["features"].add_argument("--layer", type=str, nargs="+", required=True, help="names of layers")
    parts["features"].add_argument("--images", type=int, nargs="+", default=[0, 1, 2], help="numbers of test images")
    parts["features"].add_argument("--channels", type=int, default=4, help="how many channels to show")
    for kind in ("cka", "probes", "tsne"):
        parts[kind].add_argument("--seed", type=int, default=0, help="of the choice and order of images")
    for kind, part in parts.items():
        kinds.add_subcommand(kind, part, help=_KINDS[kind].partition("\n")[0])


def _common(kind: str, text: str) -> Parser:
    parser = Parser(description=text, usage=f"locallearn analyze {kind} RUN [RUN ...] [options]")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--checkpoint", type=Literal["last", "best"], default="last", help="which checkpoint")
    parser.add_argument("--data_dir", type=Path | None, help="folder of the data set; by default the run's own")
    parser.add_argument(
        "--device", type=str, default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one"
    )
    parser.add_argument(
        "--out", type=Path | None, help="folder of the figures; by default RUN/analysis of the first run"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What an analysis of some runs comes to.

    Attributes:
        numbers: name of each run to values for JSON.
        figures: path of each figure, without ending, to the figure.
        title, columns, rows: of the table of results, if there is one.
    """

    numbers: Mapping[str, Mapping[str, Any]]
    figures: Mapping[Path, Any]
    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def run(config: Any) -> None:
    """Analyse the runs, write the figures, print the numbers."""
    options = config[config.subcommand]
    opened = [_opened(path, options) for path in options.runs]
    refuse_other_images(opened)
    if options.out is not None:
        make_folder(options.out)
    runs = dict(zip(names_of(options.runs), opened, strict=True))
    with progress() as watch:
        answer = _ANALYSES[config.subcommand](runs, options, {"watch": watch, "say": say})
    figures = [path for stem, figure in answer.figures.items() for path in _saved(figure, stem)]
    if options.json:
        show_json({"runs": answer.numbers, "figures": list(map(str, figures))})
        return
    if answer.rows:
        show(answer.title, answer.columns, answer.rows)
    for stem in answer.figures:
        say(f"wrote {stem}.png, .svg and .pdf")


def _opened(path: Path, options: Any) -> Run:
    settings = read_settings(TrainSettings, RunFolder(path))
    return Run(
        path,
        settings=settings,
        checkpoint=options.checkpoint,
        data_dir=options.data_dir,
        device=options.device,
    )


def _stem(runs: Mapping[str, Run], options: Any, name: str) -> Path:
    """Where a figure goes."""
    return (options.out or next(iter(runs.values())).analysis) / file_name(name)


def _saved(figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save_all(figure, stem)


def _cka(runs: Mapping[str, Run], options: Any, watching: Mapping[str, Any]) -> _Answer:
    against = _opened(options.against, options)
    refuse_other_images([*runs.values(), against])
    asked = {"images": options.images, "seed": options.seed, **watching}
    found = {name: cka(run, against, **asked) for name, run in runs.items()}
    figures = {}
    for name, one in found.items():
        prefix = f"{name}-" if options.out and len(runs) > 1 else ""
        stem = _stem({name: runs[name]}, options, f"{prefix}cka-vs-{against.name}")
        figures[stem] = draw_similarity(one, name=name, against=against.name)
    curves = {name: one for name, one in found.items() if len(one.per_layer)}
    rows = []
    if curves and len({one.layers for one in curves.values()}) == 1:
        stem = _stem(runs, options, f"cka-layers-vs-{against.name}")
        figures[stem] = draw_layer_similarity(curves, against=against.name)
        layers = next(iter(curves.values())).layers
        columns = [[f"{value:.3f}" for value in one.per_layer] for one in curves.values()]
        rows = list(zip(layers, *columns, strict=True))
    return _Answer(
        numbers={
            name: {
                "file": str(runs[name].result(f"cka-vs-{against.name}")),
                "layers": one.layers,
                "per_layer": listed(one.per_layer),
                "matrix": [listed(row) for row in one.matrix],
            }
            for name, one in found.items()
        },
        figures=figures,
        title="linear CKA",
        columns=("layer", *(f"{name} with {against.name}" for name in curves)),
        rows=rows,
    )


def _probes(runs: Mapping[str, Run], options: Any, watching: Mapping[str, Any]) -> _Answer:
    asked = {"images": options.images, "epochs": options.epochs, "seed": options.seed, **watching}
    found = {name: probes(run, **asked) for name, run in runs.items()}
    layers = list(dict.fromkeys(layer for one in found.values() for layer in one.layers))
    columns: dict[str, list[str]] = {}
    for name, one in found.items():
        accuracy = dict(zip(one.layers, one.accuracy, strict=True))
        columns[name] = [f"{accuracy[layer]:.2%}" if layer in accuracy else "-" for layer in layers]
        columns[f"{name}, own head"] = [f"{one.heads[layer]:.2%}" if layer in one.heads else "-" for layer in layers]
    return _Answer(
        numbers={
            name: {
                "file": str(runs[name].result("probes")),
                "layers": one.layers,
                "accuracy": one.accuracy,
                "heads": one.heads,
            }
            for name, one in found.items()
        },
        figures={_stem(runs, options, "probes"): draw_probes(found)},
        title="test accuracy of linear probes",
        columns=("layer", *columns),
        rows=list(zip(layers, *columns.values(), strict=True)),
    )


def _tsne(runs: Mapping[str, Run], options: Any, watching: Mapping[str, Any]) -> _Answer:
    first = next(iter(runs.values()))
    if options.target is not None and options.target not in first.card.classes:
        raise LocalLearnError(
            f"{first.settings.data} has no class {options.target!r}; {did_you_mean(options.target, first.card.classes)}"
        )
    layer = options.layer or first.layers[-1]
    asked = {"images": options.images, "perplexity": options.perplexity, "seed": options.seed, **watching}
    found = {name: tsne(run, layer, **asked) for name, run in runs.items()}
    return _Answer(
        numbers={
            name: {"file": str(runs[name].result(f"tsne-{layer}")), "layer": layer, "images": len(one.points)}
            for name, one in found.items()
        },
        figures={_stem(runs, options, f"tsne-{layer}"): draw_tsne(found, target=options.target)},
    )


def _features(runs: Mapping[str, Run], options: Any, watching: Mapping[str, Any]) -> _Answer:
    figures, numbers = {}, {name: {"files": []} for name in runs}
    for layer in options.layer:
        found = {}
        for name, run in runs.items():
            found[name] = feature_maps(run, layer, options.images, channels=options.channels, **watching)
            numbers[name]["files"].append(str(run.result(f"features-{layer}")))
        figures[_stem(runs, options, f"features-{layer}")] = draw_feature_maps(found)
    return _Answer(numbers=numbers, figures=figures)


_ANALYSES: Mapping[str, Callable[[Mapping[str, Run], Any, Mapping[str, Any]], _Answer]] = {
    "cka": _cka,
    "probes": _probes,
    "tsne": _tsne,
    "features": _features,
}
