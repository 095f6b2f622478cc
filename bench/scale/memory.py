"""Memory that generation needs, by the number of users: made-up users take the place of those of a small fit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.scale.engines import FACTORS, of_als, save_with_users
from bench.scale.part import MEGABYTE, Asked, Told
from bench.sites import small_checkpoint
from ranker.offline import read_manifest

EVENTS = 3  # of a user, on average: memory is the question, not time
K = 10
DEPTH = 50  # items that each source proposes
EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Needed:
    """What one generation took.

    Attributes:
        users: How many.
        items: How many.
        seconds: From start to end.
        row: Bytes of a candidate on disk.
        peak: Bytes of memory that its processes held at once, at most; not pages of mapped files, which the system
            takes back when it needs them.
    """

    users: int
    items: int
    seconds: float
    row: float
    peak: int


def measured(asked: Asked) -> Told:
    """Memory that generation needs, by the number of users and of items."""
    users = asked.users or ((500, 1_000) if asked.tiny else (1_000_000, 10_000_000))
    items = (200, 400) if asked.tiny else (1_000, 30_000)
    sizes = [*((n_users, items[0]) for n_users in users), (min(users), items[1])]
    found = memory(sizes, K, asked.folder)
    rows = [
        {
            "items": each.items, "users": each.users, "memory, MB": each.peak / MEGABYTE,
            "users a second": each.users / each.seconds, "bytes a candidate": each.row,
        }
        for each in found
    ]  # fmt: skip
    protocol = (
        f"`ranker candidates` of ALS ({FACTORS} factors) and popularity, {DEPTH} items of each and {K} candidates for "
        f"each user, {EVENTS} events a user on average. Memory is that of all its processes at once, at most, but for "
        "pages of mapped files."
    )
    return Told("Memory by users and items", protocol, rows, {"found": list(map(asdict, found))})


def memory(sizes: Sequence[tuple[int, int]], k: int, folder: Path) -> list[Needed]:
    """Generate candidates for each number of users and of items, in a process of its own.

    Args:
        sizes: Users and items.
        k: Candidates for each user.
        folder: An empty one, for models and candidates.
    """
    checkpoint = small_checkpoint(folder / "checkpoint")
    small = {n_items: of_als(n_items, checkpoint, DEPTH) for n_items in sorted({n_items for _, n_items in sizes})}
    found = []
    for n_users, n_items in sizes:
        model, out = folder / f"model-{n_users}-{n_items}", folder / f"candidates-{n_users}-{n_items}"
        save_with_users(small[n_items], n_users, EVENTS, model)
        found.append(_needed(model, out, n_users, n_items, k))
    return found


def _needed(model: Path, out: Path, n_users: int, n_items: int, k: int) -> Needed:
    clock = time.perf_counter()
    command = [sys.executable, "-m", "ranker", "candidates", model, "--out", out, "--k", str(k)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(EVERY_S)
    if process.returncode:
        raise RuntimeError(f"ranker candidates ended with {process.returncode}; it says why above.")
    seconds = time.perf_counter() - clock
    manifest = read_manifest(out)
    assert manifest.plan.users == n_users
    return Needed(n_users, n_items, seconds, sum(shard.bytes for shard in manifest.shards) / manifest.rows, peak)


def _anonymous(pid: int) -> int:
    """Bytes of a process and of those that it started which no file holds."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            total += int(status.split("RssAnon:")[1].split()[0]) * 1024
    except (psutil.NoSuchProcess, OSError, IndexError):  # one ended meanwhile
        return 0
    return total
