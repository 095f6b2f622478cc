"""Tables, plots and files of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.demo import console
from bench.plots import dots
from bench.quality.seeds import Measured
from bench.quality.systems import SERVED
from bench.tables import markdown, show, write_json
from ranker.evaluation import (
    Evaluation,
    PerUserResults,
    coverage,
    history_groups,
    per_user_metrics,
    write_per_user,
    write_report,
)

CUTOFFS = (5, 10, 20, 50)
METRIC = "ndcg@10"
KNOWN = (5, 10, 50, 200)  # events with which a group of lists begins
FIFTHS = ("first fifth", "second fifth", "third fifth", "fourth fifth", "last fifth")  # of a replay's lists
NEW, AT_ONCE = "new", "in the same second"
PAUSES = {AT_ONCE: 1, "within a minute": 60, "within an hour": 3_600, "within a day": 86_400}  # seconds, exclusive
LATER = "a day ago and more"
SHOWN = ("hr@10", METRIC, "mrr@10", "ndcg@20", "recall@50", "coverage@10")


def write(measured: Sequence[Measured], about: Mapping[str, Any], folder: Path) -> None:
    """Show the table, and write Markdown, JSON, a plot, a page of HTML, and every system's per-user metrics.

    Args:
        measured: By seed.
        about: What else belongs into the JSON.
        folder: It is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = measured[0].task
    minutes = sum(one.minutes for one in measured)
    served = SERVED[task.protocol]
    evaluation = judge(measured)
    table = summary(evaluation, measured)
    differences = evaluation.comparisons(served).rename(columns={"mean_before": served, "mean_after": "system's"})
    slices = {"NDCG@10 by events that a list knows": by_history(evaluation, measured)}
    if task.protocol == "prequential":
        slices["NDCG@10 by how long ago the user's last event was"] = by_pause(evaluation, measured)
        slices["NDCG@10 by time"] = by_time(evaluation, measured)
        slices[f"NDCG@10 by time, of lists that follow an event {AT_ONCE}"] = by_time(evaluation, measured, (AT_ONCE,))
    described = f"{task.described} Seeds: {len(measured)}; a list's metric is the mean over them."
    show(f"Means over lists; the engine's answer to this question is '{served}'", table)
    show(f"NDCG@10 of others less that of '{served}', by user", differences)
    sections = {"": table, "Paired differences by user": differences, **slices}
    text = (
        f"{described}\n\nIntervals: 95 %, bootstrap over users. The engine's answer to this question is `{served}`.\n"
    )
    for title, section in sections.items():
        text += (f"\n## {title}\n\n" if title else "\n") + markdown(section)
    (folder / "quality.md").write_text(text, encoding="utf-8")
    figures = {
        "protocol": described,
        "served": served,
        "systems": table.to_dict("records"),
        "differences": differences.to_dict("records"),
        "slices": pd.concat(slices.values(), ignore_index=True).to_dict("records"),
        "minutes": minutes,
        **about,
    }
    write_json(figures, folder / "quality.json")
    write_per_user(PerUserResults(evaluation.per_user, described, CUTOFFS), folder / "per-user.parquet")
    means = {row["system"]: (row[METRIC], row["low"], row["high"]) for row in table.to_dict("records")}
    dots(means, "NDCG@10, 95 % interval over users", folder / "quality.svg")
    title = f"Ranking quality, {task.protocol}"
    write_report(folder / "quality.html", evaluation, title=title, described=described, baseline=served)
    console.print(f"Written to {folder}, in {minutes:.1f} minutes of fitting and ranking.")


def judge(measured: Sequence[Measured]) -> Evaluation:
    """Every system's metrics."""
    n_items = len(measured[0].task.catalogue)
    lists, covered = {}, {}
    for name in measured[0].answers:
        lists[name] = over_seeds(name, measured)
        covered[name] = float(np.mean([coverage(one.answers[name].items, n_items, 10) for one in measured]))
    return Evaluation(lists, covered, users_left_out=0, seed=0)


def over_seeds(name: str, measured: Sequence[Measured]) -> pd.DataFrame:
    """A system's metrics, ``user_id`` and a row for each list: the mean over seeds where they ask the same lists."""
    tables = [
        per_user_metrics(one.answers[name].items, one.task.asked.relevant, CUTOFFS).assign(user_id=one.task.asked.users)
        for one in measured
    ]
    alike = all(table["user_id"].equals(tables[0]["user_id"]) for table in tables)
    if not alike:  # chance decided which lists there are
        return pd.concat(tables, ignore_index=True)
    values = np.mean([table.drop(columns="user_id").to_numpy() for table in tables], axis=0)
    return pd.DataFrame(values, columns=tables[0].columns.drop("user_id")).assign(user_id=tables[0]["user_id"])


def summary(evaluation: Evaluation, measured: Sequence[Measured]) -> pd.DataFrame:
    """One row a system: means with an interval of NDCG@10, and what it took."""
    rows = []
    for name, means in evaluation.summary.iterrows():
        interval = evaluation.interval(name)
        answers = [one.answers[name] for one in measured]
        fits = [answer.fit_s for answer in answers if answer.fit_s is not None]
        rows.append(
            {
                "system": name,
                **{metric: means[metric] for metric in SHOWN},
                "low": interval.low,
                "high": interval.high,
                "fit s": float(np.median(fits)) if fits else float("nan"),
                "ms a list": float(np.median([answer.list_ms for answer in answers])),
            }
        )
    return pd.DataFrame(rows)


def by_history(evaluation: Evaluation, measured: Sequence[Measured]) -> pd.DataFrame:
    """NDCG@10 of every system by how many events of its user a list knows."""
    lengths = of_lists(evaluation, [one.task.asked.lengths for one in measured])
    return evaluation.sliced(history_groups(lengths, bounds=KNOWN))


def by_pause(evaluation: Evaluation, measured: Sequence[Measured]) -> pd.DataFrame:
    """NDCG@10 of every system by how long before a replay's list its user's last event was."""
    return evaluation.sliced(pauses(evaluation, measured))


def by_time(evaluation: Evaluation, measured: Sequence[Measured], among: Sequence[str] | None = None) -> pd.DataFrame:
    """NDCG@10 of every system over equal parts of a replay's lists, the oldest first; or of some of the lists in each.

    Args:
        evaluation: What is told apart.
        measured: By seed.
        among: Names of the pauses of which lists count; None: all.
    """
    times = of_lists(evaluation, [one.task.asked.times for one in measured])
    order = pd.Series(times).rank(method="first")
    fifths = pd.Series(pd.qcut(order, len(FIFTHS), labels=list(FIFTHS)))
    if among is not None:
        fifths = fifths.where(pauses(evaluation, measured).isin(among))
    return evaluation.sliced(fifths.array)


def pauses(evaluation: Evaluation, measured: Sequence[Measured]) -> pd.Categorical[str]:
    """The group (L,) of each of a replay's lists by how long ago its user's last event was."""
    seconds = of_lists(evaluation, [one.task.asked.pauses for one in measured])
    names = [*PAUSES, LATER, NEW]
    codes = np.where(np.isnan(seconds), len(names) - 1, np.searchsorted([*PAUSES.values()], seconds, side="right"))
    return pd.Categorical([names[code] for code in codes], names, ordered=True)


def of_lists(evaluation: Evaluation, by_seed: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What is known of each list that was judged: by the first seed alone where every seed asks for the same lists."""
    return np.concatenate(by_seed)[: len(next(iter(evaluation.lists.values())))]
