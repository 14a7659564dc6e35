"""Errors that a user can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from functools import partial
from itertools import takewhile


class LocalLearnError(ValueError):
    """A user's mistake or an unusable input, told in one sentence that says what to do."""


class LocalLearnWarning(UserWarning):
    """Something works otherwise than one might expect; told once."""


class NonFiniteLossError(LocalLearnError):
    """A loss became NaN or infinite; nothing was stepped, unless a callback `on_complete` did.

    Attributes:
        objective: index of the objective in `net.objectives`.
        module: index of the objective's last local module.
        step: number of the step, from 1.
    """

    def __init__(self, message: str, *, objective: int, module: int, step: int) -> None:
        super().__init__(message)
        self.objective, self.module, self.step = objective, module, step

    def __reduce__(self) -> tuple[Callable[[], NonFiniteLossError], tuple[()]]:
        return partial(type(self), str(self), objective=self.objective, module=self.module, step=self.step), ()


class UnpredictableError(LocalLearnError):
    """A step cannot run without data, so its memory and its work cannot be predicted; it may well train."""


class OutOfMemoryError(LocalLearnError):
    """Memory ran out in training.

    Args:
        event: what happened.
        advice: what to do, which follows it.

    Attributes:
        event: what happened.
        module: index of the local module that was trained, or None where memory ran out in no module's step.
        batch: images in the batch, or in the micro-batch.
        predicted: predicted peak bytes of the step in total, or None where that is unknown.
    """

    def __init__(self, event: str, advice: str = "", *, module: int | None, batch: int, predicted: int | None) -> None:
        super().__init__(f"{event} {advice}".rstrip())
        self.event, self.advice = event, advice
        self.module, self.batch, self.predicted = module, batch, predicted

    def __reduce__(self) -> tuple[Callable[[], OutOfMemoryError], tuple[()]]:
        numbers = {"module": self.module, "batch": self.batch, "predicted": self.predicted}
        return partial(type(self), self.event, self.advice, **numbers), ()


def kind_of(value: object) -> str:
    """What a value is, in words, for an error about one of a wrong kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a {type(value).__name__}"


def reason_of(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".!")


def describe(error: BaseException) -> str:
    """Kind and first line of an error; of our own the sentence alone."""
    kind = "" if isinstance(error, LocalLearnError) else f"{type(error).__name__}: "
    return f"{kind}{error}".partition("\n")[0].rstrip(": ")


def refuse_unknown(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of its choices."""
    if value not in choices:
        raise LocalLearnError(f"{name}={value!r} is not valid; {did_you_mean(str(value), choices)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or all of them."""
    known = sorted(known)
    if near := nearest(name, known):
        return f"did you mean {near!r}?"
    return f"known: {', '.join(known)}."


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known name that another stands for: the only one that begins with it, or the most alike.

    Args:
        name: as given.
        known: the names there are.
        likeness: from 0 to 1, that the name must have at least.
    """
    name, known = name.lower(), sorted(known)
    longer = [one for one in known if one.startswith(name)]
    if len(name) > 1 and len(longer) == 1:
        return longer[0]

    def rank(one: str) -> tuple[float, int]:
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, name, strict=False))
        return SequenceMatcher(None, one, name).ratio(), len([*alike])  # for resnet21, resnet20 before resnet32

    best = max(known, key=rank, default=None)
    return best if best is not None and rank(best)[0] >= likeness else None
