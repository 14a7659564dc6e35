"""What torchrun tells each process that it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from locallearn._utils.errors import LocalLearnError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A process among several.

    Attributes:
        rank: of this process, from 0.
        count: of all processes.
        local_rank, local_count: the same among the processes of this machine.
        host, port: where the processes meet.
        restarts: how often torchrun has started the run anew.
        most_restarts: how often it may.
        hosted: whether torchrun itself answers at that address; otherwise process 0 does.
    """

    rank: int
    count: int
    local_rank: int
    local_count: int
    host: str
    port: int
    restarts: int = 0
    most_restarts: int = 0
    hosted: bool = False

    @staticmethod
    def of(environment: Mapping[str, str] = os.environ) -> Launch | None:
        """What the environment says, or None without torchrun.

        Raises:
            LocalLearnError: a variable is missing or no number.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        if missing := [name for name in _NEEDED if name not in environment]:
            raise LocalLearnError(
                f"RANK and WORLD_SIZE are set, but not {missing[0]}: start the processes by torchrun."
            )

        def number(name: str, default: str) -> int:
            try:
                return int(environment.get(name, default))
            except ValueError as error:
                raise LocalLearnError(f"{name}={environment[name]!r} is no whole number: use torchrun.") from error

        return Launch(
            rank=number("RANK", ""),
            count=number("WORLD_SIZE", ""),
            local_rank=number("LOCAL_RANK", environment["RANK"]),
            local_count=number("LOCAL_WORLD_SIZE", environment["WORLD_SIZE"]),
            host=environment["MASTER_ADDR"],
            port=number("MASTER_PORT", ""),
            restarts=number("TORCHELASTIC_RESTART_COUNT", "0"),
            most_restarts=number("TORCHELASTIC_MAX_RESTARTS", "0"),
            hosted=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )

    @property
    def address(self) -> str:
        """Where the processes meet, as host:port."""
        return f"{self.host}:{self.port}"

    def named(self, rank: int | None = None) -> str:
        """A process by its number, as in `process 1 of 2`; this one by default."""
        return f"process {self.rank if rank is None else rank} of {self.count}"


def program() -> list[str]:
    """The words that start `locallearn` as it was started here, by torchrun or without."""
    launch = Launch.of()
    if launch is None or launch.count == 1:
        return ["locallearn"]
    return ["torchrun", "--nproc-per-node", str(launch.local_count), "-m", "locallearn"]
