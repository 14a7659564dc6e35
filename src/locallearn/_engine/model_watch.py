"""The modules of a backbone as `localize` saw them: what is replaced later would not be trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from locallearn._nn.attributes import changed, fingerprints


class ModelWatch:
    """Notices modules that are replaced, attributes that are changed, and hooks that never fire.

    Args:
        model: the backbone.
        run: the parts that a training step runs: local modules and the classifier.
    """

    def __init__(self, model: nn.Module, run: Sequence[nn.Module]) -> None:
        self._children = [(name, module, tuple(module._modules.items())) for name, module in model.named_modules()]
        inside = {id(module) for part in run for module in part.modules()}
        self._not_run = [(name, module) for name, module, _ in self._children if id(module) not in inside]
        self._tensors = [(name, module, _tensors_of(module)) for name, module in self._not_run]
        self._attributes = [_Attributes(name, module) for name, module in self._not_run]

    def replaced(self) -> str | None:
        """Name of a module that was replaced, added or removed, or of a parameter that followed code reads, or None."""
        for name, module, children in self._children:
            now = tuple(module._modules.items())
            if now != children:
                changed = next(child for child, _ in sorted(set(now) ^ set(children), key=lambda pair: pair[0]))
                return f"{name}.{changed}" if name else changed
        for name, module, before in self._tensors:
            for tensor, value in before.items():
                if module._parameters.get(tensor) is not value:
                    return f"{name}.{tensor}".removeprefix(".")
        return None

    def changed_attributes(self, *, inside: bool) -> list[str]:
        """Names of attributes that were changed or added since the last call, of modules whose code was followed.

        Args:
            inside: whether to look into lists, dictionaries and objects, which takes about a millisecond.
        """
        return [
            f"{watched.name}.{attribute}".removeprefix(".")
            for watched in self._attributes
            for attribute in watched.changed(inside=inside)
        ]

    def silent_hooks(self) -> list[str]:
        """Names of modules with hooks that a step does not call, because it runs the layers inside."""
        return [name or "the model itself" for name, module in self._not_run if _has_hooks(module)]


class _Attributes:
    """The attributes of one module as they were when last looked at."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self._module = name, module
        self._values, self._fingerprints = dict(vars(module)), fingerprints(module)

    def changed(self, *, inside: bool) -> list[str]:
        now = vars(self._module)
        if not inside and now.keys() == self._values.keys() and all(now[name] is self._values[name] for name in now):
            return []
        before, self._values, self._fingerprints = self._fingerprints, dict(now), fingerprints(self._module)
        return list(changed(before, self._fingerprints))


def _tensors_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in module._parameters.items() if value is not None}


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
