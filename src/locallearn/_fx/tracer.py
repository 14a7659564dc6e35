"""Forward code as a graph: torch.fx, with the values of two batch sizes at every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.fx.proxy import Attribute, TraceError
from torch.overrides import TorchFunctionMode

from locallearn._fx.plain_forward import (
    CannotTraceError as CannotTraceError,
    DrewRandomNumbersError,
    PlainForward,
)
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.host_random import host_random_state, set_host_random_state

BATCHES = (2, 3)
"""Two batch sizes: a value that differs between them depends on the number of images, any other is a constant."""


_ROOT = "root"
_REMEDY = "put that code into a module of its own, which runs as it is"


_ONE_AT_A_TIME = RLock()
"""torch.fx patches `nn.Module` for the whole process while it traces."""

_ATTEMPTS = 3


Bind = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
"""From the tensor that a module takes to all of its arguments, by position and by name; the others are constants."""


def alone(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The tensor alone, so that all other arguments have their defaults."""
    return (x,), {}


def trace_forward(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], is_open: Callable[[str], bool], bind: Bind = alone
) -> fx.Graph:
    """Trace a module that takes one tensor, and constants.

    Python code that looks at sizes takes the branch that it takes for these arguments.

    Args:
        module: the module. It is run, so its tensors must be fake.
        arguments: the tensor, for each of `BATCHES`.
        is_open: whether to trace into a submodule, by its path; otherwise a call of it is one node.
        bind: how the module is called with the tensor.

    Returns:
        The graph. `values_of(node)` has a node's value for each batch size; `module_path(node)` its path in the module.

    Raises:
        CannotTraceError: the code depends on the number of images, or does what a graph cannot express.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _traced_twice(module, arguments, is_open, bind)
        except DrewRandomNumbersError:  # which another thread may have done
            continue
    return _traced_twice(module, arguments, is_open, bind)


def _traced_twice(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], is_open: Callable[[str], bool], bind: Bind
) -> fx.Graph:
    """The graph, where the code does the same when it runs once more; the second time no operator runs."""
    graph = _traced(module, _Tracer(arguments, is_open), bind)
    again = _Repeating(arguments, is_open, graph)
    _traced(module, again, bind)
    again.refuse_end()
    return graph


def _traced(module: nn.Module, tracer: _Tracer, bind: Bind) -> fx.Graph:
    opened = [(path, part) for path, part in module.named_modules() if not path or tracer.is_open(path)]
    try:
        with (
            _ONE_AT_A_TIME,
            torch.enable_grad(),  # as in a step, where code may ask for it; the module's tensors are fake
            PlainForward(opened),
            _Factories(tracer),
            _functions_refused(tracer),
        ):
            return tracer.trace(_Root(module, bind))
    except (LocalLearnError, CannotTraceError):
        raise
    except private_api.DataDependentOutputException as error:
        raise CannotTraceError(f"Python code reads a number from a tensor: {_REMEDY}") from error
    except Exception as error:
        if "does not support mutation" in str(error):
            raise CannotTraceError(f"a module writes to a list that it is given: {_REMEDY}") from error
        raise CannotTraceError(reason_of(error)) from error


def may_be_the_size(error: BaseException | None) -> bool:
    """Whether an error of forward code may come from an image of another size than the network takes."""
    is_code = isinstance(error, NotImplementedError | TraceError | private_api.DataDependentOutputException)
    if is_code or any(words in str(error) for words in _NOT_THE_SIZE):
        return False
    return isinstance(error, RuntimeError | ValueError | IndexError | AssertionError | ZeroDivisionError)


_NOT_THE_SIZE = (
    *("does not require grad", "tensor subclasses", "scalar types", "same dtype", "should be the same", "scalar type"),
    *("SyncBatchNorm", "not implemented for", "on device", "vmap("),
)
"""Parts of PyTorch's errors about types, devices and gradients."""


def values_of(node: fx.Node) -> tuple[Any, ...]:
    """A node's value for each of `BATCHES`."""
    return node.meta["values"]


def module_path(node: fx.Node) -> str:
    """A node's target as a path in the traced module."""
    return _path(str(node.target))


def owner_path(node: fx.Node) -> tuple[str, ...]:
    """Path, in parts, of the module whose own code has a node."""
    running = [name for name, _ in node.meta["nn_module_stack"].values()]
    path = _path(running[-2 if node.op == "call_module" else -1])
    return tuple(path.split(".")) if path else ()


def _path(target: str) -> str:
    return target.removeprefix(_ROOT).removeprefix(".")


def _versions(node: fx.Node) -> list[int]:
    """How often the tensors that a node takes were written to."""
    values = [values_of(argument)[0] for argument in node.all_input_nodes]
    return [private_api.version_of(value) for value in values if isinstance(value, torch.Tensor)]


def _modes() -> tuple[object, ...]:
    """What decides how operators compute, besides their arguments."""
    kinds = ("cpu", "cuda")
    return torch.is_grad_enabled(), *((torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds)


@contextmanager
def _functions_refused(tracer: _Tracer) -> Iterator[None]:
    """While active, the code that is traced may call no `autograd.Function`, whose backward a graph would not have."""
    original = vars(torch.autograd.Function)["apply"]  # as it stands there, bound to no class

    def apply(function: Any, *args: Any, **kwargs: Any) -> Any:
        if tracer.traces_now:
            raise CannotTraceError(
                f"it calls {function.__name__}, an autograd.Function, whose own backward a graph does not repeat:"
                f" {_REMEDY}"
            )
        return original.__func__(function, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original


class _Root(nn.Module):
    """Calls a module with one tensor, as `bind` says."""

    def __init__(self, module: nn.Module, bind: Bind) -> None:
        super().__init__()
        self.add_module(_ROOT, module)
        self.bind = bind

    def forward(self, x: Any) -> Any:
        args, kwargs = self.bind(x)
        return self.get_submodule(_ROOT)(*args, **kwargs)


def _refuse_data(node: fx.Node) -> None:
    """Refuse Python code that reads the values of a tensor, which tracing does not know."""
    if isinstance(values_of(node)[0], torch.Tensor):
        raise CannotTraceError(f"Python code reads the values of {_text(node)}: {_REMEDY}")


class _Concrete:
    """A proxy that knows its value, for Python code that needs a number."""

    node: Any

    def _number(self) -> Any:
        _refuse_data(self.node)
        first, second = values_of(self.node)
        if type(first) is not type(second) or first != second:
            raise CannotTraceError(f"{_text(self.node)} depends on the number of images")
        return first

    def __int__(self) -> int:
        return int(self._number())

    def __index__(self) -> int:
        return self._number().__index__()

    def __float__(self) -> float:
        return float(self._number())

    def __str__(self) -> str:
        first, second = values_of(self.node)
        return str(first) if isinstance(first, int | float) and first == second else repr(self)

    def __len__(self) -> int:
        lengths = {len(value) for value in values_of(self.node)}
        if len(lengths) > 1:
            raise CannotTraceError(f"the length of {_text(self.node)} depends on the number of images")
        return lengths.pop()


class _Proxy(_Concrete, fx.Proxy):
    def __setitem__(self, key: Any, value: Any) -> None:
        raise CannotTraceError(f"it assigns to a part of a tensor or list, x[...] = y: {_REMEDY}")

    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)  # pyright: ignore[reportCallIssue]


class _Attribute(_Concrete, Attribute):  # pyright: ignore[reportIncompatibleMethodOverride]
    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)  # pyright: ignore[reportCallIssue]


class _Factories(TorchFunctionMode):
    """Puts functions that make a tensor from numbers, such as `torch.rand`, into the graph: they run in each step."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.tracer.computing or func not in _MAKES_TENSORS:
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            raise CannotTraceError(f"it draws from a torch.Generator of its own: {_REMEDY}")
        return self.tracer.create_proxy("call_function", func, args, kwargs)


_MAKES_TENSORS = {
    *(torch.arange, torch.linspace, torch.zeros, torch.ones, torch.full, torch.eye, torch.tensor, torch.empty),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
}


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, arguments: tuple[torch.Tensor, ...], is_open: Callable[[str], bool]) -> None:
        super().__init__()
        self.arguments, self.is_open = arguments, is_open
        self.computing = False
        self._thread = get_ident()
        with torch.enable_grad():
            self._modes = _modes()

    @property
    def traces_now(self) -> bool:
        """Whether the code that is traced runs, and not an operator or a module of a node, or another thread."""
        return not self.computing and get_ident() == self._thread

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        path = _path(module_qualified_name)
        return bool(path) and not self.is_open(path)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if kind == "get_attr" and not str(target).startswith(f"{_ROOT}."):
            raise CannotTraceError(
                "it uses a tensor that is no attribute, as of parameters(), state_dict() or torch.from_numpy: name each"
                f" parameter, register other tensors as buffers, or {_REMEDY}"
            )
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":
            self._compute(node)
        return node

    def create_arg(self, a: Any) -> Any:
        try:
            return super().create_arg(a)
        except NotImplementedError as error:
            kind = type(a).__name__
            raise CannotTraceError(f"it gives a {kind} to an operator, which a graph cannot hold: {_REMEDY}") from error

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> fx.Proxy:
        if not self.computing and _modes() != self._modes:
            raise CannotTraceError(
                "it runs operators under torch.no_grad, set_grad_enabled or autocast, which a graph does not repeat:"
                f" {_REMEDY}"
            )
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **options)
        if kind != "get_attr":
            self._compute(proxy.node)
        return proxy

    def _compute(self, node: fx.Node) -> None:
        self.computing = True
        state = host_random_state()
        versions = _versions(node)
        try:
            node.meta["values"] = tuple(self._value(node, index) for index in range(len(BATCHES)))
            node.meta["writes"] = _versions(node) != versions
        finally:
            self.computing = False
            set_host_random_state(state)  # modules run as they are, and may draw

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        plainly = self.computing or get_ident() != self._thread  # fx patches the modules of all threads
        return forward(*args, **kwargs) if plainly else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        plainly = self.computing or get_ident() != self._thread
        return attr_val if plainly else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        _refuse_data(obj.node)
        first, second = (bool(value) for value in values_of(obj.node))
        if first != second:
            raise CannotTraceError(f"a choice by {_text(obj.node)} depends on the number of images")
        return first

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        return iter([obj[index] for index in range(len(obj))])  # pyright: ignore[reportArgumentType, reportIndexIssue]

    def _value(self, node: fx.Node, index: int) -> Any:
        if node.op == "placeholder":
            return self.arguments[index]
        args, kwargs = map_arg((node.args, node.kwargs), lambda argument: values_of(argument)[index])
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        with private_api.numbers_refused():
            return self._value_outside_modules(node, args, kwargs)

    def _value_outside_modules(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        return args[0]  # the output


class _Repeating(_Tracer):
    """Traces once more with the values of an earlier graph, and refuses code that does other things than before."""

    def __init__(self, arguments: tuple[torch.Tensor, ...], is_open: Callable[[str], bool], earlier: fx.Graph) -> None:
        super().__init__(arguments, is_open)
        self._left = [node for node in earlier.nodes if "values" in node.meta]

    def _compute(self, node: fx.Node) -> None:
        before = self._left.pop(0) if self._left else None
        if before is None or _text(node) != _text(before):
            self._refuse(node, before)
        node.meta |= before.meta

    def refuse_end(self) -> None:
        """Refuse code that ended earlier than before."""
        if self._left:
            self._refuse(None, self._left[0])

    def _refuse(self, now: fx.Node | None, before: fx.Node | None) -> NoReturn:
        texts = [_text(node) if node else "its end" for node in (before, now)]
        raise CannotTraceError(
            f"when it runs twice, {texts[0]} is {texts[1]} the second time (by a time, a counter, random numbers of its"
            f" own), but a graph repeats the first: {_REMEDY}"
        )


def _text(node: fx.Node) -> str:
    """A node as code, such as `mul(stem, 2.0)`."""
    name = getattr(node.target, "__name__", str(node.target)).removeprefix(f"{_ROOT}.")
    arguments = map_arg((node.args, dict(node.kwargs)), lambda argument: _Name(argument.name))  # pyright: ignore[reportArgumentType]
    values = [str(value) for value in arguments[0]] + [f"{key}={value}" for key, value in arguments[1].items()]
    return f"{name}({', '.join(values)})"


class _Name(str):
    __repr__ = str.__str__
