"""The layers of timm's networks: its own groups of parameters, or blocks where a group is a whole stage."""

from __future__ import annotations

from typing import Any

from torch import nn

from locallearn._fx.blocks import CONTAINERS, has_weights, is_single_layer
from locallearn._torch.vision_libraries import import_timm


def timm_groups(model: nn.Module) -> list[list[str]] | None:
    """Names of modules by timm's own grouping of the parameters; None where the network has none."""
    if not callable(matcher := getattr(model, "group_matcher", None)):
        return None
    import_timm()
    from timm.models import group_parameters  # pyright: ignore[reportMissingImports]

    group_of: dict[str, Any] = dict(group_parameters(model, matcher(coarse=False), reverse=True))
    modules_of: dict[int, list[str]] = {}

    def visit(path: str, module: nn.Module) -> None:
        names = (f"{path}.{name}" if path else name for name, _ in module.named_parameters())
        groups = {group_of[name] for name in names if name in group_of}  # a shared parameter has one of its names only
        weighted = [child for child in module.children() if has_weights(child)]
        holds_one = isinstance(module, CONTAINERS) and len(weighted) == 1
        if len(groups) == 1 and path and not holds_one and not isinstance(module, nn.ModuleList):
            modules_of.setdefault(groups.pop(), []).append(path)
            return
        for name, child in module.named_children():
            if groups:
                visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return list(modules_of.values()) if len(modules_of) > 1 else None


def hold_stages(model: nn.Module, groups: list[list[str]]) -> bool:
    """Whether one of the groups holds a sequence of modules of several layers each, as a stage does."""
    modules = [part for group in groups for name in group for part in model.get_submodule(name).modules()]
    return any(
        isinstance(part, CONTAINERS)
        and sum(has_weights(child) and not is_single_layer(child) for child in part.children()) > 1
        for part in modules
    )
