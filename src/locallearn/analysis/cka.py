r"""Layer-wise similarity of two networks: linear CKA by the unbiased minibatch estimator.

Kornblith et al. 2019 define CKA; Nguyen, Raghu & Kornblith 2021 ("Do wide and deep networks learn the same things?",
Eqs. 2 and 3) estimate it from minibatches without bias. With features :math:`X, Y` of the same :math:`n` images, the
Gram matrices :math:`K = XX^\top` and :math:`L = YY^\top`, and :math:`\tilde K, \tilde L` the same with zeros on the
diagonal,

.. math::
    \mathrm{HSIC}_1(K, L) = \frac{1}{n(n-3)} \left( \mathrm{tr}(\tilde K \tilde L)
    + \frac{1^\top \tilde K 1 \; 1^\top \tilde L 1}{(n-1)(n-2)} - \frac{2}{n-2} 1^\top \tilde K \tilde L 1 \right)

.. math::
    \mathrm{CKA} = \frac{\sum_b \mathrm{HSIC}_1(K_b, L_b)}
    {\sqrt{\sum_b \mathrm{HSIC}_1(K_b, K_b)} \sqrt{\sum_b \mathrm{HSIC}_1(L_b, L_b)}}

The sums are over minibatches b, each weighted by its number of images. The code uses an equal form of HSIC_1, which
takes one matrix product for all pairs of layers: the inner product of the two U-centred Gram matrices, over n (n - 3)
(Székely & Rizzo 2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.analysis.cache import Say, answered, silent
from locallearn.analysis.runs import Run, Watch, refuse_other_images, unwatched

_FEWEST = 4
"""Images of a batch, by the factor n - 3."""


@dataclass(frozen=True, kw_only=True)
class CKA:
    """Similarity of the layers of two networks.

    Attributes:
        layers, against_layers: their names.
        matrix: of each layer of the one with each of the other, (layers, against_layers); 1 is equal up to rotation and
            scale, 0 is unrelated, and small values may be negative. A layer with constant output has NaN.
    """

    layers: tuple[str, ...]
    against_layers: tuple[str, ...]
    matrix: NDArray[np.float64]

    @property
    def per_layer(self) -> NDArray[np.float64]:
        """Of each layer with the layer of the same name, (layers,); empty for networks of other layers."""
        return self.matrix.diagonal() if self.layers == self.against_layers else np.empty(0)

    @staticmethod
    def of(values: Mapping[str, Any]) -> CKA:
        """The similarity in a file of results.

        Raises:
            KeyError, TypeError, ValueError: it holds something else.
        """
        layers, others = tuple(values["layers"]), tuple(values["against_layers"])
        matrix = np.array(values["matrix"], dtype=np.float64)  # null becomes NaN
        if matrix.shape != (len(layers), len(others)):
            raise ValueError("matrix")
        return CKA(layers=layers, against_layers=others, matrix=matrix)


class MinibatchCKA:
    """Sums over minibatches, from which the CKA of all pairs of layers follows.

    Memory beyond one layer's features: one float64 matrix of batch x batch for each layer.
    """

    def __init__(self) -> None:
        self._cross: Tensor | float = 0.0
        self._own: Tensor | float = 0.0
        self._other: Tensor | float = 0.0

    def add(self, features: Iterable[Tensor], others: Iterable[Tensor]) -> None:
        """Add a batch; each layer's features, (n, ...), are used before the next one's are asked for.

        A batch counts by its number of images; one of fewer than four is left out.
        """
        one, two = _centred_grams(features), _centred_grams(others)
        n = round(one.shape[1] ** 0.5)
        if n < _FEWEST:
            return
        weight = 1 / (n - 3)  # n images, and the HSIC over n (n - 3)
        self._cross = self._cross + weight * (one @ two.T)
        self._own = self._own + weight * one.square().sum(1)
        self._other = self._other + weight * two.square().sum(1)

    def result(self) -> NDArray[np.float64]:
        """CKA of all pairs, (layers, others)."""
        if not (isinstance(self._cross, Tensor) and isinstance(self._own, Tensor) and isinstance(self._other, Tensor)):
            raise LocalLearnError(f"no batch was added, so there is no CKA: add() one of at least {_FEWEST} images.")
        scale = self._own.sqrt()[:, None] * self._other.sqrt()
        return (self._cross / scale.masked_fill(scale == 0, torch.nan)).cpu().numpy()


def _centred_grams(layers: Iterable[Tensor]) -> Tensor:
    """The U-centred Gram matrices of all layers' features, flat, (layers, n * n), float64."""
    return torch.stack([_u_centred(features).flatten() for features in layers])


def _u_centred(features: Tensor) -> Tensor:
    """The Gram matrix without diagonal, whose rows and columns then sum to zero; (n, n), float64."""
    flat = features.flatten(1).float()
    flat = flat - flat.mean(0)  # changes no result, but float32 would lose what is small beside the mean
    gram = (flat @ flat.T).double()
    n = len(gram)
    if n < _FEWEST:
        return gram
    gram.fill_diagonal_(0)
    rows = gram.sum(1) / (n - 2)
    gram += rows.sum() / (n - 1) - rows - rows[:, None]
    return gram.fill_diagonal_(0)


def cka(
    run: Run,
    against: Run,
    *,
    images: int | None = None,
    batch: int = 256,
    seed: int = 0,
    watch: Watch = unwatched,
    say: Say = silent,
) -> CKA:
    """CKA of all layers of a run with all layers of another, on test images.

    The result lies in `RUN/analysis/cka-vs-OTHER.json` and answers the same question again.

    Args:
        run: the one.
        against: the other, on the same data: backpropagation, say.
        images: how many test images; by default 10,000, or all if there are fewer.
        batch: images in a minibatch.
        seed: of the choice and order of the images.
        watch: told of progress.
        say: told why an earlier result is not used.

    Raises:
        LocalLearnError: the runs saw different data, or there are too few images.
    """
    refuse_other_images([run, against])
    if images is not None and images < _FEWEST:
        raise LocalLearnError(f"images={images}: unbiased CKA needs at least {_FEWEST} images, better hundreds.")
    if batch < _FEWEST:
        raise LocalLearnError(f"batch={batch}: unbiased CKA needs at least {_FEWEST} images in a batch.")
    question = {"checkpoint": run.fingerprint, "against": against.fingerprint}
    question |= {"images": images, "batch": batch, "seed": seed}

    def compute() -> dict[str, Any]:
        rows = run.test_rows(images, seed=seed, most=10_000)
        if len(rows) < _FEWEST:
            raise LocalLearnError(f"{counted(len(rows), 'test image')}: unbiased CKA needs at least {_FEWEST}.")
        batches, sums = run.testing(rows, batch=min(batch, len(rows)), uses_labels=False), MinibatchCKA()
        for done, (inputs, _) in enumerate(batches.epoch(1), 1):
            sums.add(run.outputs(inputs), against.outputs(inputs))
            watch(f"CKA of {run.name} and {against.name}", done, len(batches))
        matrix = sums.result()
        found = CKA(layers=run.layers, against_layers=against.layers, matrix=matrix)
        return {
            "against": str(against.path),
            "layers": list(found.layers),
            "against_layers": list(found.against_layers),
            "per_layer": listed(found.per_layer),
            "matrix": [listed(row) for row in matrix],
        }

    return CKA.of(answered(run.result(f"cka-vs-{against.name}"), question, compute, say=say))


def listed(values: NDArray[np.float64]) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
