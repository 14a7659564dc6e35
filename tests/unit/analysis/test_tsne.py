"""t-SNE of a layer's features."""

from __future__ import annotations

import numpy as np
import pytest
from analysed_runs import backbone
from sklearn.neighbors import KNeighborsClassifier

from locallearn import LocalLearnError
from locallearn.analysis import tsne


def test_neighbours_in_the_plane_are_of_one_class_where_the_network_tells_classes_apart(runs):
    run = backbone(runs, "bp")
    found = tsne(run, run.layers[-1], perplexity=8)
    assert found.points.shape == (40, 2)
    assert np.bincount(found.labels).tolist() == np.bincount(run.data.test.labels).tolist()  # pyright: ignore
    assert found.classes == ("rows", "columns", "diagonals")
    score = KNeighborsClassifier(3).fit(found.points, found.labels).score(found.points, found.labels)
    assert score > 0.7


def test_equal_seeds_give_equal_points_and_the_result_is_used_again(runs):
    layer = backbone(runs, "dgl").layers[0]
    options = {"images": 20, "perplexity": 4.0, "seed": 3}
    first, told = tsne(backbone(runs, "dgl"), layer, **options), []
    again = tsne(backbone(runs, "dgl"), layer, **options, watch=lambda *step: told.append(step))
    assert told == []
    (runs / "dgl" / "analysis" / f"tsne-{layer}.json").unlink()
    anew = tsne(backbone(runs, "dgl"), layer, **options, watch=lambda *step: told.append(step))
    assert told[-1] == ("t-SNE of dgl", 1, 1)
    assert (first.points == again.points).all()
    assert (first.points == anew.points).all()
    assert (first.labels == anew.labels).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": 2}, "2 images for 3 classes: t-SNE needs at least one image for each class"),
        (
            {"images": 20},
            "a perplexity of 30 is too much for 20 images: give more than 90 images, or a perplexity below 7",
        ),
        ({"perplexity": 0.0}, "perplexity of 0"),
        ({"images": 41}, "there are 40 test images"),
    ],
)
def test_too_few_images_are_refused(options, sentence, trained):
    run = backbone(trained, "bp")
    with pytest.raises(LocalLearnError, match=sentence):
        tsne(run, run.layers[-1], **options)


def test_a_layer_that_is_not_there_is_refused(trained):
    with pytest.raises(LocalLearnError, match=r"has no layer 'layer9'"):
        tsne(backbone(trained, "bp"), "layer9")
