"""The recipe to begin with: of no paper, but of a search under limits of memory and time.

`docs/results/recommended.md` says what was searched and measured, `benchmarks/recipe_search.py narrow` repeats it.
"""

from __future__ import annotations

from locallearn.recipes.recipe import Recipe
from locallearn.rules import AugLocal
from locallearn.training import SGD, Cosine, TrainSettings

RECOMMENDED = Recipe(
    name="recommended",
    settings=TrainSettings(
        rule=AugLocal(depth=4, narrow=0.75),
        epochs=15,
        optimizer=SGD(lr=0.2, weight_decay=5e-4, decay_norms_and_biases=False),
        schedule=Cosine(warmup=0.2),
        label_smoothing=0.1,
        ema=0.98,
        precision="bf16",
        step="module",
    ),
    note="less memory than checkpointing: docs/results/recommended.md",
)
"""The winner of the search; its settings do not limit the training images."""
