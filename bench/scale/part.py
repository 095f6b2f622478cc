"""What each part of the benchmark is asked and tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.timing import Budget

MEGABYTE = 10**6


@dataclass(frozen=True, slots=True)
class Asked:
    """How a part is to be measured.

    Attributes:
        budget: Of each system that is timed.
        users: Numbers of users whose memory is measured; None: as usual.
        data: Where data sets are kept.
        out: Where plots go.
        folder: An empty one, which is removed afterwards.
        tiny: A fraction of the work, to try the path.
    """

    budget: Budget
    users: tuple[int, ...] | None
    data: Path
    out: Path
    folder: Path
    tiny: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What was measured.

    Attributes:
        title: Of the table.
        protocol: What was done, above the table.
        rows: Of the table.
        about: What the table does not hold, for JSON.
    """

    title: str
    protocol: str
    rows: list[dict[str, Any]]
    about: dict[str, Any]
