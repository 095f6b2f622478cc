"""What a replay of feedback measured: means with intervals, curves over time, and how long each step took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.feedback.beside import Beside
from bench.feedback.replay import LEARNING, LIVE, REFITTING, STATIC, Replayed
from bench.tables import markdown, show, write_json
from ranker.evaluation import bootstrap_mean, paired_bootstrap

PARTS = 25  # of a curve over time


def write(
    found: Replayed,
    expected: Mapping[tuple[object, object], float],
    counts: Mapping[str, int],
    about: Mapping[str, Any],
    folder: Path,
    arrived: Sequence[object] = (),
) -> None:
    """Show the tables, and write them as Markdown and JSON, with the curves as a plot.

    Args:
        found: What was measured.
        expected: (user, item) → NDCG@10 of the same list in the replay in memory.
        counts: Of the learner, and of the sources that were fitted again; empty where nothing learned.
        about: What was replayed, on what.
        folder: Where the files go.
        arrived: Items of which the fit saw no rating; lists that were to find one are told of apart, too.
    """
    users = pd.factorize(pd.Series(found.users))[0]
    values = {name: np.array(each) for name, each in found.ndcg.items()}
    new = np.isin(np.array(found.items), np.array(arrived))
    parts = {"all": np.ones(len(users), np.bool_)}
    if len(np.unique(users[new])) > 1:  # fewer have no interval
        parts["films that arrived"] = new
    means = pd.DataFrame(
        [
            {"lists": part, "system": name, "count": int(rows.sum()),
             **_interval(bootstrap_mean(values[name][rows], seed=0, users=users[rows]))}
            for part, rows in parts.items() for name in values
        ]
    )  # fmt: skip
    differences = pd.DataFrame(
        [
            {"lists": part, "system": after, "against": before,
             "times": values[after][rows].mean() / (values[before][rows].mean() or np.nan),
             **_difference(paired_bootstrap(values[before][rows], values[after][rows], seed=0, users=users[rows]))}
            for part, rows in parts.items()
            for before, after in ((STATIC, LIVE), (LIVE, LEARNING), (LIVE, REFITTING)) if after in values
        ]
    )  # fmt: skip
    durable = np.array(
        [expected[user, item] - one for user, item, one in zip(found.users, found.items, values[LIVE], strict=True)]
    )
    figures = {
        "largest difference of a list from the replay in memory": float(np.abs(durable).max()),
        "difference of the mean": float(durable.mean()),
        **{
            f"{name} ms, {label}": 1000 * float(np.quantile(part, share))
            for name, part in {
                "feedback": found.feedback_s, "update of the user's state": found.state_s, "list": found.recommend_s,
                "feedback and the user's next list": found.pair_s or found.recommend_s,
            }.items()
            for label, share in (("median", 0.5), ("p99", 0.99))
        },
    }  # fmt: skip
    if LEARNING in values:
        lists, seconds = sum(found.lists), sum(found.step_s)
        in_steps = lists + counts.get("replayed lists", 0)
        figures |= {
            "new lists learned from, a second of learning": lists / max(seconds, 1e-9),
            "lists in gradient steps, a second": in_steps / max(seconds, 1e-9),
            "lists in gradient steps, a second of these alone": in_steps / max(found.gradient_s, 1e-9),
            "events taken, a second": counts["events"] / max(seconds, 1e-9),
            "seconds to fit the sources again, median": float(np.median(found.refit_s or [0.0])),
            **{f"learner: {name}": count for name, count in sorted(counts.items())},
        }
    over_time = curves(found, values)
    figures_table = pd.DataFrame({"figure": list(figures), "value": list(figures.values())})
    sections = {"NDCG@10": means, "Differences, by user": differences, "Figures": figures_table, "Over time": over_time}
    for title, table in sections.items():
        show(title, table)
    folder.mkdir(parents=True, exist_ok=True)
    told = ", ".join(f"{name} {value}" for name, value in about.items() if not isinstance(value, dict))
    text = f"{told}.\n\nIntervals: 95 %, bootstrap over users.\n"
    text += "".join(f"\n## {title}\n\n{markdown(table)}" for title, table in sections.items())
    (folder / "feedback.md").write_text(text, encoding="utf-8")
    content = {title: table.to_dict("records") for title, table in sections.items()}
    write_json({**about, **content}, folder / "feedback.json")
    _plot(over_time, folder / "feedback.svg")


def write_poisoned(clean: Replayed, found: Replayed, counts: Mapping[str, int], folder: Path) -> None:
    """The same lists with and without poison in the stream, shown and written beside the rest."""
    users = pd.factorize(pd.Series(clean.users))[0]
    rows = []
    for name in (LIVE, LEARNING, REFITTING):
        before, after = np.array(clean.ndcg[name]), np.array(found.ndcg[name])
        difference = paired_bootstrap(before, after, seed=0, users=users)
        rows.append(
            {"system": name, "without": before.mean(), "poisoned": after.mean(), "relative": difference.relative,
             **_difference(difference)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    counts = {"refused events": found.refused, **counts}
    figures = pd.DataFrame({"figure": list(counts), "value": list(counts.values())})
    show("NDCG@10 with poison in the stream", table)
    show("The learner and the log, poisoned", figures)
    text = f"## With poison in the stream\n\n{markdown(table)}\n{markdown(figures)}"
    (folder / "poisoned.md").write_text(text, encoding="utf-8")
    write_json({"systems": rows, "counts": counts}, folder / "poisoned.json")


def write_beside(found: Beside, folder: Path) -> None:
    """What requests take beside a learner, shown and written beside the rest."""
    rows = []
    for name, timings in found.timings.items():
        times = {"median ms": 1000 * timings.median, "p95 ms": 1000 * timings.percentile(95)}
        rows.append({"beside": name, "pairs": len(timings.latencies), **times, "of alone": str(found.ratio(name))})
    waits = np.array(found.promotion_s)
    figures = {"promotions": len(waits), **{
        f"seconds until what was promoted served, {label}": float(how(waits)) if len(waits) else float("nan")
        for label, how in (("median", np.median), ("longest", np.max))
    }}  # fmt: skip
    table, promoted = pd.DataFrame(rows), pd.DataFrame({"figure": list(figures), "value": list(figures.values())})
    show("A rating and its user's next list, beside a learner", table)
    show("Promotions under that load", promoted)
    text = f"## A rating and its user's next list, beside a learner\n\n{markdown(table)}\n{markdown(promoted)}"
    (folder / "beside.md").write_text(text, encoding="utf-8")
    write_json({"pairs": rows, **figures}, folder / "beside.json")


def _interval(mean: Any) -> dict[str, float]:
    return {"mean": mean.mean, "low": mean.low, "high": mean.high}


def _difference(difference: Any) -> dict[str, float]:
    return {"difference": difference.difference, "low": difference.low, "high": difference.high}


def curves(found: Replayed, values: Mapping[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    """Means of NDCG@10 by system over equal parts of a replay, and how many lists each part has."""
    at = np.array(found.at)
    part = np.minimum(PARTS - 1, at * PARTS // max(1, int(at.max()) + 1))
    table = pd.DataFrame({"ratings": at, **values}).groupby(part).mean().reset_index(drop=True)
    return table.assign(ratings=table["ratings"].round().astype(int), lists=np.bincount(part, minlength=PARTS)[
        np.unique(part)
    ])  # fmt: skip


def _plot(curves: pd.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in curves.columns.drop(["ratings", "lists"]):
        axes.plot(curves["ratings"], curves[name], label=name)
    axes.set_xlabel("ratings replayed")
    axes.set_ylabel("NDCG@10")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
