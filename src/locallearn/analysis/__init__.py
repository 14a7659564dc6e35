"""What a trained run learned: similarity to another run, linear separability, t-SNE, feature maps; and their figures.

Results lie in `RUN/analysis/` and answer the same question again. Imports `training` and what is below it.
"""

from locallearn.analysis.cka import CKA as CKA, MinibatchCKA as MinibatchCKA, cka as cka
from locallearn.analysis.feature_maps import FeatureMaps as FeatureMaps, feature_maps as feature_maps
from locallearn.analysis.figures import (
    draw_feature_maps as draw_feature_maps,
    draw_layer_similarity as draw_layer_similarity,
    draw_probes as draw_probes,
    draw_similarity as draw_similarity,
    draw_tsne as draw_tsne,
)
from locallearn.analysis.probes import Probes as Probes, probes as probes
from locallearn.analysis.runs import Run as Run, refuse_other_images as refuse_other_images
from locallearn.analysis.tsne import Embedding as Embedding, tsne as tsne
