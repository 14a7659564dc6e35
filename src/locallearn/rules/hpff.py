r"""HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion (Su et al., ECCV 2024).

HiLo (section 3.2) puts an independent auxiliary network g after each local module j, and a cascade auxiliary network h
after each k neighbouring modules i ... i+k-1. Both levels train module j (Eq. 5, with i = j - k + 1):

.. math::
    \theta_j \leftarrow \theta_j - \eta_d \nabla_{\theta_j} \mathcal{L}(\hat y_j, y)
    - \sum_{n=i}^{i+k-1} \eta_c \nabla_{\theta_j} \mathcal{L}(\hat y_n, y), \qquad
    \hat y_j = g_{\gamma_j}(x_{j+1}), \quad \hat y_n = h_{\beta_n}(x_{n+k}).

Auxiliary networks themselves follow their own loss alone (Eq. 3-4). Only cascades inside the network count in the sum.

PFF (section 3.3) cuts the features into n x n patches and averages what the auxiliary network gives for each (Eq. 6-7):

.. math::
    x_{j+1} = \bigl\{ x_{j+1}^{(k,l)} : 1 \le k, l \le n \bigr\}, \qquad
    \hat y_j = \frac{1}{n^2} \sum_{k=1}^{n} \sum_{l=1}^{n} g_{\gamma_j}\bigl(x_{j+1}^{(k,l)}\bigr).

=========================== ================================================================
symbol                      here
=========================== ================================================================
k                           `HiLo.span`
:math:`\eta_d, \eta_c`      `HiLo.independent` and `HiLo.cascade`: weights of the losses,
                            times one learning rate (official code)
terms of Eq. 5              `HiLo.spans`: one `Span` for each loss
n                           `PFF.patches`
:math:`x^{(k,l)}`           `cut`
Eq. 7                       `Patchwise` in `_objectives/patchwise.py`
=========================== ================================================================
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from locallearn._chain.layout import carrying_shape
from locallearn._nn.checkpointed import saved_bytes
from locallearn._nn.init import fresh_copy
from locallearn._objectives.auxiliary import Auxiliary, Outputs, part_without_outputs
from locallearn._objectives.decoders import Reconstruction
from locallearn._objectives.objective import Level, Site, Span
from locallearn._objectives.patchwise import Patchwise, cut
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.rules.base import Fidelity, Rule
from locallearn.rules.infopro import HPFFImageNetInfoPro
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class HiLo(Wrapper):
    r"""Any rule at two levels: an objective for each module, and cascades over `span` neighbouring modules (Eq. 5).

    Cascades overlap. Each has an auxiliary network of its own after its last module, of the inner rule's kind.

    Where the paper (section 3.2, section 4.1) and the official code (`network/resnetInfoPro_HPFF.py`) differ:

    ==================== ========================================== ============================================
    \                    `fidelity="official"`                      `fidelity="paper"`
    ==================== ========================================== ============================================
    first modules        those that end no cascade have no          every module but the last has one
                         objective of their own
    last module          ends a cascade; both its objectives go     is trained by itself, with weight 1
                         through the one classifier
    reconstruction       of cascades alone; the other level has     at both levels
                         the task loss, with weight 1
    ==================== ========================================== ============================================

    The code runs each module several times, and so updates running statistics several times a step; here it runs once.

    Args:
        rule: the inner rule, positional; it has one objective per module.
        span: k, modules in a cascade; at least 2. One module is plain backpropagation; other numbers too small for a
            cascade are refused.
        independent, cascade: weights of the two levels; they multiply the inner rule's own. `independent=0` leaves its
            level out.
        fidelity: see the table.
    """

    does = frozenset({"puts cascades over the modules"})

    span: int = 2
    independent: float = 0.001
    cascade: float = 0.999
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.span < 2:
            raise LocalLearnError(f"{type(self).__name__}: span={self.span}, but a cascade has at least 2 modules.")
        if min(self.independent, self.cascade) < 0:
            raise LocalLearnError(f"{type(self).__name__}: independent and cascade must be at least 0.")

    def spans(self, modules: int) -> list[Span]:
        if modules == 1:
            return [Span(first=0, last=0)]
        k, paper = self.span, self.fidelity == "paper"
        first = 0 if paper else k - 1  # with an independent loss
        end = modules - 1 if paper else modules  # of both levels
        if end < k:
            raise LocalLearnError(
                f"{type(self).__name__} puts cascades over {k} neighbouring modules"
                f"{', none of them the last' if paper else ''}, and there are {modules}: ask for at least"
                f" {k + modules - end} modules, or for a smaller span."
            )
        inner = self.rule.spans(modules)
        if sorted((span.first, span.last) for span in inner) != [(j, j) for j in range(modules)]:
            raise LocalLearnError(
                f"{type(self).__name__} puts cascades over a rule with one objective per module, and {self.rule} has"
                f" others: use it without {type(self).__name__}."
            )
        own = {span.last: span.weight for span in inner}
        singles = range(first, end) if self.independent else ()
        independent = [Span(first=j, last=j, weight=self.independent * own[j]) for j in singles]
        cascades = [Span(first=i, last=i + k - 1, weight=self.cascade * own[i + k - 1]) for i in range(end - k + 1)]
        alone = [Span(first=j, last=j, weight=own[j]) for j in range(end, modules)]
        return [*independent, *cascades, *alone]

    def auxiliary(self, site: Site) -> Auxiliary:
        auxiliary = self.rule.auxiliary(site)
        if self.fidelity == "official" and site.level is Level.INDEPENDENT:
            return auxiliary.with_parts(lambda part: None if isinstance(part, Reconstruction) else part) or auxiliary
        return auxiliary


@dataclass(frozen=True, kw_only=True)
class PFF(Wrapper):
    r"""Any rule, its auxiliary networks applied patch by patch (Eq. 6-7).

    Where the paper (section 3.3) and the official code (`network/auxiliary_net.py`) differ:

    ================ =========================================== ===============================================
    \                `fidelity="official"`                       `fidelity="paper"`
    ================ =========================================== ===============================================
    what is patched  decoders; a rule without any is not         whole auxiliary networks
                     changed, with a warning
    parameters       a decoder of its own for each patch         one network for all patches
    outputs          the losses of the patches are added         vectors are averaged; parts of the image are put
                                                                 together, so that each pixel counts once
    memory           all patches at once                         one patch at once, computed twice, where a network
                                                                 stores more than twice the bytes of its features
    ================ =========================================== ===============================================

    Batch normalisation sees each patch as a batch. Patch borders lie at floor(i * size / n), of features and image
    alike, so odd sizes work (the official code fails on odd images). Features smaller than n x n, and vectors, are
    not cut, with a warning. Tokens are cut as the map of their positions.

    Args:
        rule: the inner rule, positional.
        patches: n, for n x n patches.
        fidelity: see the table.
    """

    does = frozenset({"cuts features into patches"})

    patches: int = 2
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches < 1:
            raise LocalLearnError(f"{type(self).__name__}: patches={self.patches} must be at least 1.")

    def auxiliary(self, site: Site) -> Auxiliary:
        auxiliary = self.rule.auxiliary(site)
        if self._takes_whole((0, 0) if site.is_vector else site.shape[1:]):
            return auxiliary
        if self.fidelity == "official":
            return self._official(auxiliary)
        if (part := part_without_outputs(auxiliary)) is not None:
            raise LocalLearnError(
                f"PFF needs the outputs of an auxiliary network apart from its loss: give {type(part).__name__} methods"
                " outputs() and loss_of() instead of forward()."
            )
        return _patchwise(auxiliary, site, self.patches)

    def _takes_whole(self, size: tuple[int, int]) -> bool:
        """Whether maps are too small to be cut; warns if so."""
        if min(size) >= self.patches:
            return False
        _warn(f"PFF does not cut features smaller than {self.patches} x {self.patches}.")
        return True

    def _official(self, auxiliary: Auxiliary) -> Auxiliary:
        has_decoder = False

        def per_patch(part: Auxiliary) -> Auxiliary:
            nonlocal has_decoder
            if not isinstance(part, Reconstruction):
                return part
            has_decoder = True
            return part if self._takes_whole(part.size) else ReconstructionOfPatches(part, self.patches)

        auxiliary = auxiliary.with_parts(per_patch) or auxiliary
        if not has_decoder:
            _warn(
                f"PFF as in the official code patches decoders alone, and {type(self.rule).__name__} has none: it"
                " changes nothing there. PFF as in the paper (fidelity='paper') patches every auxiliary network."
            )
        return auxiliary


class ReconstructionOfPatches(Reconstruction):
    """A decoder for each patch of features, and the sum of their losses on the patches of the image."""

    def __init__(self, whole: Reconstruction, patches: int) -> None:
        super().__init__(whole.decoder, whole.size, whole.mean, whole.std)
        self.patches = patches
        self.others = nn.ModuleList(fresh_copy(whole.decoder) for _ in range(patches**2 - 1))

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        decoders = [self.decoder, *self.others]
        patches = zip(decoders, cut(features, self.patches), cut(images, self.patches), strict=True)
        return tuple(decoder(patch, image.shape[2:]) for decoder, patch, image in patches)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        pairs = zip(outputs, cut(images, self.patches), strict=True)
        distances = [self.distance(output, image) for output, image in pairs if isinstance(output, Tensor)]
        return torch.stack(distances).sum()


def _patchwise(auxiliary: Auxiliary, site: Site, patches: int) -> Patchwise:
    """One network for all patches, one at a time where it stores more than twice the bytes of its features."""
    dtype = next(parameter for layer in site.chain.layers for parameter in layer.parameters()).dtype
    auxiliary = auxiliary.to(dtype=dtype)  # layers copied from the backbone have its type, new ones do not
    with private_api.fake_mode() as mode:
        shape = carrying_shape(site.shape, auxiliary.prefix)
        features = torch.empty((2, *shape), dtype=dtype, requires_grad=True).clone()
        images = torch.empty((2, *site.image_shape), dtype=dtype)
        network = private_api.fake_copy(auxiliary, mode).train()
        stored = saved_bytes(network, network.outputs, features, images)
        writes = private_api.version_of(features) > 0
    return Patchwise(auxiliary, patches, one_at_a_time=stored > 2 * features.nbytes, copied=writes)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, LocalLearnWarning, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class HPFF(Wrapper):
    """`HiLo(PFF(rule))`: two levels of objectives, and auxiliary networks applied patch by patch.

    The published runs have the inner rule `InfoPro.published("hpff")` and the splits `hpff-K`; on ImageNet
    `HPFF.imagenet()` and the splits `hpff-4` and `hpff-8`.

    Args:
        rule: the inner rule, positional.
        span: modules in a cascade, as in `HiLo`.
        patches: n, for n x n patches, as in `PFF`.
        fidelity: of both; their docstrings list where the paper and the official code differ.
    """

    does = HiLo.does | PFF.does

    span: int = 2
    patches: int = 2
    fidelity: Fidelity = "official"

    @classmethod
    def imagenet(cls) -> HiLo:
        """The form of the official code for ImageNet: cascades alone, with weight 1, and no patches."""
        return HiLo(HPFFImageNetInfoPro(), independent=0.0, cascade=1.0)

    @property
    def inner(self) -> Rule:
        patched = PFF(self.rule, patches=self.patches, fidelity=self.fidelity)
        return HiLo(patched, span=self.span, fidelity=self.fidelity)
