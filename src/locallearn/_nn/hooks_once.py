"""Forward hooks of a module that runs twice: they fire in its first run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from locallearn._nn.state_copy import mark_of
from locallearn._torch import private_api
from locallearn._torch.live_bytes import tensors_in

Hooks = dict[int, Callable[..., Any]]


class HooksOnce:
    """Lets forward hooks fire once.

    A hook that takes part in the computation must run each time: one that returned something, wrote on a tensor it was
    given, or changed an attribute of its module in the first run.
    """

    def __init__(self) -> None:
        self._acting: set[int] = set()
        self._dicts: list[Hooks] = []

    @contextmanager
    def first_run(self, parts: Iterable[nn.Module]) -> Iterator[None]:
        """Around the first run: notices which hooks take part in the computation."""
        of_parts = (hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks) if hooks)
        self._dicts = [*of_parts, *(hooks for hooks in private_api.global_forward_hooks() if hooks)]
        replaced = [(hooks, key, hook) for hooks in self._dicts for key, hook in hooks.items() if _is_users(hook)]
        watching = [(hooks, key, hook, self._watching(hook)) for hooks, key, hook in replaced]
        try:
            for hooks, key, _, watch in watching:
                hooks[key] = watch
            yield
        finally:
            for hooks, key, hook, watch in watching:
                if hooks.get(key) is watch:  # a hook may remove itself
                    hooks[key] = hook

    @contextmanager
    def another_run(self) -> Iterator[None]:
        """Around another run: only hooks that take part in the computation fire."""
        before = [(hooks, dict(hooks)) for hooks in self._dicts]
        try:
            for hooks, all_hooks in before:
                for key, hook in all_hooks.items():
                    if _is_users(hook) and id(hook) not in self._acting:
                        hooks[key] = _nothing
            yield
        finally:
            for hooks, all_hooks in before:
                for key, hook in all_hooks.items():
                    if key in hooks:
                        hooks[key] = hook

    def _watching(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def watch(module: nn.Module, *given: Any) -> Any:
            before = _versions(module, given)
            result = hook(module, *given)
            if result is not None or _versions(module, given) != before:
                self._acting.add(id(hook))
            return result

        return watch


def _nothing(*given: Any) -> None:
    """A hook that does nothing."""


def _is_users(hook: Callable[..., Any]) -> bool:
    return not private_api.computes_weight(hook)


def _versions(module: nn.Module, given: Any) -> list[object]:
    """What differs after a hook that changed its module or the tensors it was given."""
    attributes = [*vars(module).items(), *module._buffers.items(), *module._parameters.items()]
    own = [value for _, value in attributes if isinstance(value, Tensor)]
    return [
        *((name, id(value)) for name, value in attributes),
        *map(mark_of, own),
        *map(private_api.version_of, tensors_in(given)),
    ]
