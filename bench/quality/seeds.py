"""A seed's answers on disk: a run of hours that is cut short goes on with the seeds that it lacks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.protocols import Task
from bench.quality.systems import Answer
from ranker.installed import libraries
from retrieval.storage import replacing

ROOT = Path(__file__).parents[2]
PACKAGES = ("encoders", "retrieval", "ranker", "bench")


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What every system answered to the questions of one seed.

    Attributes:
        task: The questions.
        answers: By system.
        minutes: Of fitting and ranking.
    """

    task: Task
    answers: dict[str, Answer]
    minutes: float


def key_of(settings: Mapping[str, Any], names: list[str]) -> str:
    """What must be the same for answers to be the same: code, libraries, settings, and which systems are asked."""
    code = hashlib.sha256()
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for path in sorted([*files, *ROOT.glob("constraints*.txt")]):  # which pin the peers' libraries, too
        code.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    key = {"code": code.hexdigest(), "libraries": libraries(), "settings": settings, "peers": names}
    return json.dumps(key, sort_keys=True)


def keep(measured: Measured, key: str, path: Path) -> None:
    """Write a seed's answers, whole or not at all."""
    answers = measured.answers
    times = {name: (answer.fit_s, answer.list_ms) for name, answer in answers.items()}
    about = {"key": key, "lists": len(measured.task.asked), "minutes": measured.minutes, "times": times}
    items = {f"items {at}": answer.items.astype(np.int32) for at, answer in enumerate(answers.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **items)


def kept(task: Task, key: str, path: Path) -> Measured | None:
    """What ``keep`` wrote, if it answers these questions by this key; else None."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        if (about["key"], about["lists"]) != (key, len(task.asked)):
            return None
        answers = {
            name: Answer(file[f"items {at}"].astype(np.int64), fit_s, list_ms)
            for at, (name, (fit_s, list_ms)) in enumerate(about["times"].items())
        }
    return Measured(task, answers, about["minutes"])
