"""t-SNE of the features after a layer, by scikit-learn (HPFF, Fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn._utils.quantities import counted
from locallearn.analysis.cache import Say, answered, silent
from locallearn.analysis.runs import Run, Watch, pooled, unwatched


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Test images in the plane.

    Attributes:
        layer: name of the layer.
        points: of each image, (n, 2).
        labels: of each image, (n,), indices into `classes`.
        classes: names.
    """

    layer: str
    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def tsne(
    run: Run,
    layer: str,
    *,
    images: int | None = None,
    perplexity: float = 30.0,
    batch: int = 256,
    seed: int = 0,
    watch: Watch = unwatched,
    say: Say = silent,
) -> Embedding:
    """Embed the features of test images after a layer, averaged over each channel's map, in the plane.

    The features are standardised by their largest standard deviation, and t-SNE begins at their first two principal
    components, so equal seeds give equal pictures. The result lies in `RUN/analysis/tsne-LAYER.json` and answers the
    same question again.

    Args:
        run: the run.
        layer: name of the layer.
        images: how many test images, drawn at random; by default 2,000, or all if there are fewer.
        perplexity: about how many neighbours each image has.
        batch: images in a batch.
        seed: of the images and of t-SNE.
        watch: told of progress.
        say: told why an earlier result is not used.

    Raises:
        LocalLearnError: there is no such layer, or there are too few images for the classes or the perplexity.
    """
    classes = run.card.classes
    question = {"checkpoint": run.fingerprint, "layer": layer, "images": images, "perplexity": perplexity}
    question |= {"seed": seed}

    def compute() -> dict[str, Any]:
        index, rows = run.index_of(layer), run.test_rows(images, seed=seed, most=2000)
        _refuse_too_few(len(rows), len(classes), perplexity)
        batches, features, labels = run.testing(rows, batch=batch), [], []
        for done, (inputs, targets) in enumerate(batches.epoch(1), 1):
            outputs = run.outputs(inputs)
            features += [pooled(next(part for i, part in enumerate(outputs) if i == index)).cpu()]
            labels += targets.tolist()
            watch(f"features of {run.name} after {layer}", done, len(batches))
        watch(f"t-SNE of {run.name}", 0, 1)
        points = _embedded(np.concatenate(features), perplexity, seed)
        watch(f"t-SNE of {run.name}", 1, 1)
        return {"layer": layer, "points": points.round(3).tolist(), "labels": labels, "classes": list(classes)}

    result = answered(run.result(f"tsne-{layer}"), question, compute, say=say)
    return Embedding(
        layer=result["layer"],
        points=np.array(result["points"]),
        labels=np.array(result["labels"]),
        classes=tuple(result["classes"]),
    )


def _refuse_too_few(images: int, classes: int, perplexity: float) -> None:
    if images < classes:
        raise LocalLearnError(
            f"{counted(images, 'image')} for {counted(classes, 'class')}: t-SNE needs at least one image for each"
            " class."
        )
    if perplexity <= 0 or images <= 3 * perplexity:
        raise LocalLearnError(
            f"a perplexity of {perplexity:g} is too much for {counted(images, 'image')}: give more than"
            f" {3 * perplexity:g} images, or a perplexity below {images / 3:.0f}."
        )


def _embedded(features: NDArray[np.float32], perplexity: float, seed: int) -> NDArray[np.float64]:
    """The points of standardised features, in one thread: more would change bits, and wait on busy processors."""
    scaled = features.astype(np.float64) / (features.std(0).max() or 1.0)
    manifold, pools = optional("sklearn.manifold", extra="analysis"), optional("threadpoolctl", extra="analysis")
    model = manifold.TSNE(perplexity=perplexity, init="pca" if features.shape[1] > 1 else "random", random_state=seed)
    with pools.threadpool_limits(1):
        return model.fit_transform(scaled).astype(np.float64)
