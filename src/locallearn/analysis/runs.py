"""A trained run as its layers: the outputs of one forward pass, layer by layer, on images without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import device_of
from locallearn._utils.atomic_files import file_name
from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn._utils.quantities import there_are
from locallearn._utils.registry import names_of_file
from locallearn.data import Batches, DataSet, Feed, OrderedBatches
from locallearn.rules import BP
from locallearn.training import (
    RunFolder,
    TrainSettings,
    build,
    data_of,
    digest_of,
    load_checkpoint,
    load_weights,
    refuse_other_data,
    trained_weights,
)
from locallearn.training.files.data_card import DataCard
from locallearn.training.trained import data_card_of

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done, finished steps, steps in total."""

_BACKBONE = ("model", "layers", "data", "train_images", "image_size", "batch", "seed", "channels_last", "bad_images")
"""Settings that the backbone and its images depend on."""


def unwatched(what: str, done: int, total: int) -> None:
    """A `Watch` that does nothing."""


class Run:
    """A run folder of `locallearn train`, opened for analysis. Network and images are loaded when they are needed.

    Args:
        path: the run folder.
        settings: the run's; with them, `probes` tests the auxiliary heads too. By default the backbone is read alone.
        checkpoint: "last" or "best".
        data_dir: folder of the data set; the run's own by default.
        device: where to compute; `auto` takes a GPU where there is one.
        trust_code: import the code of models and data sets that the run folder names by a dotted path; otherwise
            registered ones are needed. Settings from the caller are trusted.

    Attributes:
        path, checkpoint: as given.
        settings: the run's, or those that the backbone depends on.
        has_heads: whether the auxiliary networks are loaded too.

    Raises:
        LocalLearnError: there is no run or no checkpoint, or there is no such device.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: TrainSettings | None = None,
        checkpoint: str = "last",
        data_dir: Path | None = None,
        device: str = "auto",
        trust_code: bool = False,
    ) -> None:
        self.path, self.checkpoint, self.device = path, checkpoint, device_of(device)
        self.has_heads = settings is not None
        self._trust_code = trust_code or self.has_heads
        raw = RunFolder(path).read_settings("train")
        with names_of_file(trust_code=trust_code):
            self.settings = settings or TrainSettings(
                rule=BP(),
                data_dir=Path(str(raw.get("data_dir", "data"))),
                **{name: raw[name] for name in _BACKBONE if name in raw},
            )
        self._data_dir = data_dir or self.settings.data_dir
        self._file = path / f"{checkpoint}.pt"
        if not self._file.exists():
            load_checkpoint(self._file)  # says which other one is there

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def analysis(self) -> Path:
        """The folder of results, `RUN/analysis`."""
        return self.path / "analysis"

    def result(self, name: str) -> Path:
        """The file of a result, such as `RUN/analysis/probes.json`."""
        return self.analysis / f"{file_name(name)}.json"

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 that ends the checkpoint, by which results are known to be of this network."""
        return digest_of(self._file)

    @cached_property
    def card(self) -> DataCard:
        """Classes, shape and normalisation of the images."""
        with names_of_file(trust_code=self._trust_code):
            return data_card_of(RunFolder(self.path), self.settings)

    @cached_property
    def net(self) -> LocalNet:
        """The trained network, on its device, in evaluation mode."""
        state: dict[str, Any] = trained_weights(load_checkpoint(self._file))
        with names_of_file(trust_code=self._trust_code), torch.random.fork_rng(devices=[]):
            net = build(self.settings, self.card)
        if not self.has_heads:
            state = {name: part for name, part in state.items() if name.startswith("model.")}
        load_weights(net, state, file=self._file, name=self.settings.model)
        return net.to(self.device).eval().requires_grad_(False)

    @cached_property
    def data(self) -> DataSet:
        """The data set of the run."""
        with names_of_file(trust_code=self._trust_code):
            return data_of(replace(self.settings, data_dir=self._data_dir))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return self.net.chain.names

    def index_of(self, layer: str) -> int:
        """The index of a layer.

        Raises:
            LocalLearnError: there is none of this name.
        """
        if layer not in self.layers:
            raise LocalLearnError(f"{self.path} has no layer {layer!r}; {did_you_mean(layer, self.layers)}")
        return self.layers.index(layer)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Iterator[Tensor]:
        """The layers' outputs in one forward pass, as maps (batch, channels, height, width) or vectors.

        Use each before the next is asked for: a layer may write on its input, and none is stored here.
        """
        chain, features = self.net.chain, images.clone() if self.net.chain.begins_in_place[0] else images
        for layer, layout in zip(chain.layers, chain.layouts, strict=True):
            features = layer(features)
            yield layout.to_map(features)

    def test_rows(self, images: int | None, *, seed: int, most: int | None = None) -> NDArray[np.int64]:
        """Numbers of some test images, drawn at random, for files are sorted by class.

        Args:
            images: how many; all by default, and at most `most`.
            seed: of the draw.
            most: where `images` is None.

        Raises:
            LocalLearnError: there are fewer.
        """
        return _drawn(len(self.data.test), images, "test", seed=seed, most=most)

    def train_rows(self, images: int | None, *, seed: int) -> NDArray[np.int64]:
        """The same of the training images."""
        return _drawn(len(self.data.train), images, "training", seed=seed)

    def testing(self, rows: NDArray[np.int64], *, batch: int, uses_labels: bool = True) -> Batches:
        """Batches of these test images, in this order."""
        return self._plain(self.data.testing(self._feed), rows, batch, uses_labels=uses_labels)

    def training(self, rows: NDArray[np.int64], *, batch: int) -> Batches:
        """Batches of these training images, in this order, without augmentation; none of a single image."""
        return self._plain(self.data.training(self._feed, seed=0, drop_single=True), rows, batch)

    @property
    def _feed(self) -> Feed:
        return self.settings.feed(self.device)

    def _plain(self, batches: Batches, rows: NDArray[np.int64], batch: int, *, uses_labels: bool = True) -> Batches:
        if not isinstance(batches, OrderedBatches):
            raise LocalLearnError(
                f"{self.settings.data} makes its batches by {type(batches).__name__}, in which single images cannot be"
                " chosen: derive it from locallearn.data.OrderedBatches."
            )
        if uses_labels and batches.labels.ndim == 2:
            raise LocalLearnError(
                f"images of {self.settings.data} have several labels, and this analysis needs one class for each: only"
                " locallearn analyze cka works without."
            )
        return batches.in_this_order(rows, batch=batch)


def _drawn(count: int, images: int | None, split: str, *, seed: int, most: int | None = None) -> NDArray[np.int64]:
    asked = min(count, most or count) if images is None else images
    if not 1 <= asked <= count:
        raise LocalLearnError(
            f"images={asked}, but {there_are(count, f'{split} image')}: give a number from 1 to that."
        )
    return np.random.default_rng(seed).permutation(count)[:asked]


def pooled(features: Tensor) -> Tensor:
    """The mean of each channel, (batch, channels), float32, of maps or vectors."""
    return (features.mean((2, 3)) if features.dim() == 4 else features).float()


def refuse_other_images(runs: Sequence[Run]) -> None:
    """Refuse to compare runs on different data, or with different sizes or normalisation of images.

    Raises:
        LocalLearnError: names the first run that differs, and in what.
    """
    refuse_other_data(runs)
    first, *others = runs
    for other in others:
        if first.card != other.card:
            raise LocalLearnError(
                f"{first.path} and {other.path} saw different images ({_images(first)}; {_images(other)}): compare runs"
                " with one size of images."
            )


def _images(run: Run) -> str:
    return f"{run.settings.data}, {' x '.join(map(str, run.card.image_shape))}"
