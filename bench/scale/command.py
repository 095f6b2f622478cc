"""``python -m bench scale``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import typer

from bench.demo import console, show_progress
from bench.plots import growths
from bench.scale.exact import OURS, STORED, exact
from bench.scale.growth import EVENTS, STAGES, exponent, growth
from bench.scale.memory import EVENTS as FEW_EVENTS
from bench.scale.memory import FACTORS, memory
from bench.scale.search import BATCH, DEPTH, EXACT, search
from bench.scale.spark import ROUNDS as SPARK_ROUNDS
from bench.scale.spark import K as SPARK_K
from bench.scale.spark import spark
from bench.tables import markdown, show, write_json
from bench.timing import Budget, Ratio, median_ratio

MEGABYTE = 10**6

Part = Literal["als", "search", "spark", "growth", "memory"]


def main(
    part: Annotated[
        Literal["als", "search", "spark", "growth", "memory"] | None, typer.Option(help="One part alone.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For each system that is timed, at most.")] = 40.0,
    users: Annotated[list[int] | None, typer.Option(help="Numbers of users whose memory is measured.")] = None,
    data: Annotated[Path, typer.Option(help="Where the data set is kept whose texts are read.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("runs/scale"),
    tiny: Annotated[bool, typer.Option(help="A fraction of the work, to try the path.")] = False,
) -> None:
    """Measure offline generation at sizes that no real data set here has."""
    show_progress()
    out.mkdir(parents=True, exist_ok=True)
    if part in (None, "als"):
        _als(1.0 if tiny else seconds, out, tiny)
    if part in (None, "search"):
        _search(1.0 if tiny else seconds, out, tiny)
    if part in (None, "spark"):
        _spark(out, tiny)
    if part in (None, "growth"):
        _growth(data, out, tiny)
    if part in (None, "memory"):
        _memory(tuple(users or ((500, 1_000) if tiny else (100_000, 1_000_000))), out, tiny)
    console.print(f"Written to {out}.")


def _als(seconds: float, out: Path, tiny: bool) -> None:
    """Candidates a second, beside implicit's."""
    n_users, n_items, dim = (2_000, 3_000, 16) if tiny else (100_000, 100_000, 128)
    k, batch = (20, 500) if tiny else (200, 2_048)
    found = exact(n_users, n_items, dim, k, batch, (1, 2), Budget(seconds))
    rows = [
        {
            "cores": cores, "system": name, "batches": len(timings.latencies),
            "users a second": batch / timings.median,
            "this library against it": str(found.ratio(name, cores)) if name != OURS else "",
        }
        for (name, cores), timings in found.timings.items()
    ]  # fmt: skip
    told = (
        f"{n_users:,} users × {n_items:,} items, {dim} factors, {k} candidates, batches of {batch:,} users; "
        f"of {STORED}, {found.shared:.2%} of the candidates are the same, and no score differs by more than "
        f"{found.largest:.1e} of the best."
    )
    sizes = {"users": n_users, "items": n_items, "factors": dim, "k": k, "batch": batch}
    about = {**sizes, "shared": found.shared, "largest difference": found.largest}
    _write("als", "ALS candidates", told, rows, about, out)


def _search(seconds: float, out: Path, tiny: bool) -> None:
    """Approximate search beside exact search."""
    # a graph over a million vectors is left out, whose building takes longest
    sizes = {3_000: ("ivf", "hnsw")} if tiny else {100_000: ("ivf", "hnsw"), 1_000_000: ("ivf",)}
    dim = 32 if tiny else 384
    found = {n_items: search(n_items, dim, kinds, Budget(seconds)) for n_items, kinds in sizes.items()}
    rows = [
        {
            "items": n_items, "index": kind, f"recall@{DEPTH}": each.recall, "effort": each.report.effort,
            "batch, ms a query": 1e3 * each.batch / BATCH, "times the exact": _told(kind, each.batch_ratio),
            "alone, ms": 1e3 * each.single, "times the exact alone": _told(kind, each.single_ratio),
            "build, s": each.seconds, "file, MB": each.size / MEGABYTE,
        }
        for n_items, kinds in found.items() for kind, each in kinds.items()
    ]  # fmt: skip
    told = (
        f"{DEPTH} nearest of {dim}-dimensional clustered vectors, one core, in batches of {BATCH} queries and one at a "
        "time. The queries had no part in building: the effort was chosen on others."
    )
    plain = {size: {kind: asdict(each) for kind, each in kinds.items()} for size, kinds in found.items()}
    about = {"dim": dim, "batch": BATCH, "depth": DEPTH, "found": plain}
    _write("search", "Approximate search", told, rows, about, out)


def _spark(out: Path, tiny: bool) -> None:
    """Candidates by Spark, by its task threads."""
    n_users, n_items = (200, 300) if tiny else (20_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=out) as folder:
        timings = spark(n_users, n_items, (1, 2), Path(folder), rounds=1 if tiny else SPARK_ROUNDS)
    rows = [
        {
            "task threads": tasks, "jobs": len(each.latencies), "users a second": n_users / each.median,
            "times one": str(median_ratio(timings[1], each)) if tasks > 1 and len(each.latencies) > 1 else "",
        }
        for tasks, each in timings.items()
    ]  # fmt: skip
    told = (
        f"Candidates of ALS ({FACTORS} factors) and popularity, {SPARK_K} for each of {n_users:,} users among "
        f"{n_items:,} items, written as Parquet by local Spark. A session for each job, which has run once before it "
        "is timed."
    )
    _write("spark", "Spark by task threads", told, rows, {"users": n_users, "items": n_items}, out)


def _growth(data: Path, out: Path, tiny: bool) -> None:
    """Time and memory of each stage, by size."""
    with tempfile.TemporaryDirectory(prefix="scale-", dir=out) as folder:
        found = growth(Path(folder), data, tiny)
    rows = [
        {
            "stage": stage.name, "sizes": " · ".join(f"{cost.size:,}" for cost in costs) + f" {stage.axis}",
            "seconds": " · ".join(f"{cost.seconds:.3g}" for cost in costs),
            "grows with the power": exponent(costs, lambda cost: cost.seconds),
            "memory, MB": " · ".join(f"{cost.memory / MEGABYTE:.3g}" for cost in costs),
        }
        for stage, costs in ((stage, found[stage.name]) for stage in STAGES)
    ]  # fmt: skip
    told = (
        "Each size in a process of its own, on all cores but for the index, which is built on one. Users have "
        f"{EVENTS} events on average. Memory is by how much the process grew at most."
    )
    curves = {name: [(cost.size, cost.seconds) for cost in costs] for name, costs in found.items()}
    growths(curves, "seconds", out / "growth.svg")
    _write(
        "growth",
        "Growth",
        told,
        rows,
        {"found": {name: list(map(asdict, costs)) for name, costs in found.items()}},
        out,
    )


def _told(kind: str, ratio: Ratio) -> str:
    return "" if kind == EXACT else str(ratio)


def _memory(users: tuple[int, ...], out: Path, tiny: bool) -> None:
    """Memory that generation needs, by the number of users and of items."""
    items, k = ((200,) if tiny else (1_000, 10_000)), 10
    with tempfile.TemporaryDirectory(prefix="scale-", dir=out) as folder:
        found = memory(users, items, k, Path(folder))
    rows = [
        {
            "items": each.items, "users": each.users, "memory, MB": each.peak / MEGABYTE,
            "users a second": each.users / each.seconds,
        }
        for each in found
    ]  # fmt: skip
    told = (
        f"`ranker candidates` of ALS ({FACTORS} factors) and popularity, {k} candidates for each user, {FEW_EVENTS} "
        "events a user on average. Memory is that of all its processes at once, at most, but for pages of mapped files."
    )
    _write("memory", "Memory by users and items", told, rows, {"found": list(map(asdict, found))}, out)


def _write(name: str, title: str, told: str, rows: list[dict[str, Any]], about: dict[str, Any], out: Path) -> None:
    table = pd.DataFrame(rows)
    show(told, table)
    (out / f"{name}.md").write_text(f"# {title}\n\n{told}\n\n{markdown(table)}", encoding="utf-8")
    write_json({**about, "rows": rows}, out / f"{name}.json")
