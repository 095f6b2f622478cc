"""The sections of a report: what each says of a measurement, in tables and plots.

Every plot stands beside the table of its figures, so that nothing is told by a picture alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ranker.evaluation import plots
from ranker.evaluation.evaluate import METRIC, Evaluation
from ranker.evaluation.slices import Groups

VALUE, CHANGE, SHARE = "{:.4f}", "{:+.4f}", "{:.1%}"
NOTHING = "–"  # for what is not known, such as the interval of one user
INTERVAL = ["mean", "low", "high"]
COMPARED = {  # the columns of a comparison: how each is called and written
    "mean_before": ("before", VALUE),
    "mean_after": ("after", VALUE),
    "difference": ("difference", CHANGE),
    "low": ("low", CHANGE),
    "high": ("high", CHANGE),
    "relative": ("relative", "{:+.1%}"),
    "p_value": ("p", VALUE),
    "p_holm": ("p, Holm", VALUE),
    "n_users": ("users", "{:,}"),
}
TESTED = (
    "Paired by user, as means over users. The 95 % intervals (low to high) are each for itself. p is that of the "
    "randomization test, and p, Holm is corrected for all rows of the report: below 0.05, chance would show even one "
    "such row in one of twenty reports."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is written, and whether none of its column is better."""

    text: str
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What a row is of, and its figures."""

    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; the first column has the rows' names."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]

    @classmethod
    def of(cls, caption: str, texts: pd.DataFrame, best: pd.DataFrame | None = None) -> Table:
        """A table of what is written already; its index has the rows' names.

        Args:
            caption: Above it.
            texts: What is written.
            best: Of the same shape: which cells stand out.
        """
        chosen = np.zeros(texts.shape, np.bool_) if best is None else best.to_numpy(np.bool_)
        rows = [
            Row(str(name), [Cell(*pair) for pair in zip(row, marked, strict=True)])
            for name, row, marked in zip(texts.index, texts.to_numpy().tolist(), chosen.tolist(), strict=True)
        ]
        return cls(caption, [str(texts.index.name), *map(str, texts.columns)], rows)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot, in words for those who do not see it, and its caption."""

    svg: str
    spoken: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    parts: Sequence[Table | Plot]


def of_evaluation(
    evaluation: Evaluation, baseline: str, slices: Mapping[str, Groups], beyond: pd.DataFrame | None
) -> Iterator[Section]:
    """Yield the sections of an evaluation's report; see `write_report`."""
    means = evaluation.summary.rename_axis("system")
    accuracy = means.drop(columns="coverage@10")
    cutoffs = sorted({_cutoff(name) for name in accuracy.columns})
    yield Section(
        "All metrics",
        "Means over lists. The best of each column stands out.",
        [_best_marked(f"At cut-off {k}", accuracy[[n for n in accuracy.columns if _cutoff(n) == k]]) for k in cutoffs],
    )
    yield _certainty(evaluation)
    if len(evaluation.lists) > 1:
        compared = evaluation.comparisons(baseline).set_index("system")
        yield Section(
            f"{METRIC} against {baseline}",
            f"{TESTED} Right of 0 is better than {baseline}.",
            [
                _forest("differences", compared, METRIC),
                _comparison(compared, f"Each system (after) against {baseline} (before)"),
            ],
        )
    if len(cutoffs) > 1:
        best = accuracy[f"ndcg@{max(cutoffs)}"].idxmax()
        spoken = (
            f"Line plots of every metric over the cut-offs, one line per system. {best} has the best NDCG at the last."
        )
        drawn = Plot(plots.curves("cut-offs", accuracy), spoken, "Every metric over the cut-offs.")
        yield Section("By cut-off", "Means over lists; the figures are in the first tables.", [drawn])
    yield _distribution(evaluation)
    for number, (name, groups) in enumerate(slices.items()):
        yield _slice(f"slice {number}", name, evaluation.sliced(groups))
    others = means[["coverage@10"]] if beyond is None else means[["coverage@10"]].join(beyond)
    yield Section(
        "Beyond accuracy",
        "coverage@10 is the share of the catalogue that is in somebody's first 10. More of these is not always better.",
        [Table.of("Of each system's lists", _written(others, VALUE))],
    )


def of_comparison(compared: pd.DataFrame) -> Iterator[Section]:
    """Yield the sections of a comparison's report, one for each metric; see `write_comparison`."""
    for metric, part in compared.groupby("metric", sort=False):
        rows = part.set_index("system")
        yield Section(
            str(metric),
            f"{TESTED} Right of 0 is better than before.",
            [_forest(f"differences in {metric}", rows, str(metric)), _comparison(rows, "Each system before and after")],
        )


def _certainty(evaluation: Evaluation) -> Section:
    found = [evaluation.interval(name) for name in evaluation.lists]
    table = pd.DataFrame([(one.mean, one.low, one.high) for one in found], list(evaluation.lists), INTERVAL)
    best = table["mean"].idxmax()
    spoken = (
        f"Dot plot of the {METRIC} of every system with its interval. {best} is best with {table['mean'].max():.4f}."
    )
    return Section(
        f"{METRIC} and how sure it is",
        "Means over lists, with 95 % bootstrap intervals over users. Whether two systems differ is not to be seen here "
        "but in their differences, which are much surer than either.",
        [
            Plot(
                plots.intervals("means", list(table.index), {METRIC: table.to_numpy()}, f"{METRIC} (0 to 1)"),
                spoken,
                "Mean and 95 % interval of each system.",
            ),
            _best_marked("Mean and 95 % interval", table.rename_axis("system"), ["mean"]),
        ],
    )


def _forest(name: str, compared: pd.DataFrame, metric: str) -> Plot:
    clear = [str(system) for system in compared.index[compared["p_holm"] < 0.05]]
    differences = compared[["difference", "low", "high"]].to_numpy()
    axis = f"difference in {metric}"
    return Plot(
        plots.intervals(name, [*map(str, compared.index)], {metric: differences}, axis, against_zero=True),
        f"Dot plot of differences in {metric} with their intervals around a line at 0. Corrected p-values are below "
        f"0.05 for {', '.join(clear) or 'none'}.",
        "Difference and 95 % interval of each system; the line is no difference.",
    )


def _comparison(compared: pd.DataFrame, caption: str) -> Table:
    texts = {title: _written(compared[[column]], form)[column] for column, (title, form) in COMPARED.items()}
    return Table.of(caption, pd.DataFrame(texts).rename_axis("system"))


def _distribution(evaluation: Evaluation) -> Section:
    of_users = {name: table[METRIC].to_numpy() for name, table in evaluation.per_user.items()}
    nothing = {name: float((values == 0).mean()) for name, values in of_users.items()}
    table = pd.DataFrame({"users with 0": pd.Series(nothing)}).rename_axis("system")
    quantiles = pd.DataFrame(
        {f"{share:.0%} quantile": {n: np.quantile(v, share) for n, v in of_users.items()} for share in (0.5, 0.75, 0.9)}
    )
    least = min(nothing, key=nothing.__getitem__)
    return Section(
        f"{METRIC} of single users",
        "Each user's mean over their lists. Where a curve is higher, more users get lists that are better than that.",
        [
            Plot(
                plots.shares("users", of_users, f"{METRIC} of a user (0 to 1)"),
                f"Step plot of the share of users above every value of {METRIC}. {least} leaves the fewest at 0: "
                f"{nothing[least]:.1%}.",
                f"Share of users whose {METRIC} is above a value.",
            ),
            Table.of("Users by system", _written(table, SHARE).join(_written(quantiles, VALUE))),
        ],
    )


def _slice(name: str, title: str, found: pd.DataFrame) -> Section:
    """A section on groups of lists, from `Evaluation.sliced`."""
    of_groups = {str(group): part.set_index("system") for group, part in found.groupby("group", sort=False)}
    means = pd.DataFrame({group: part["mean"] for group, part in of_groups.items()})
    texts = {}
    for group, part in of_groups.items():
        n_users = part["n_users"].iloc[0]
        texts[f"{group} ({n_users:,} user{'' if n_users == 1 else 's'})"] = [
            "{} ({} to {})".format(*(_text(value, VALUE) for value in row)) for row in part[INTERVAL].to_numpy()
        ]
    series = {group: part[INTERVAL].to_numpy(np.float64) for group, part in of_groups.items()}
    leaders = ", ".join(f"{means[group].idxmax()} for {group}" for group in means)
    return Section(
        f"{METRIC} by {title}",
        "Means over the lists of each group, with 95 % bootstrap intervals over users.",
        [
            Plot(
                plots.intervals(name, [*map(str, means.index)], series, f"{METRIC} (0 to 1)"),
                f"Dot plot of the {METRIC} of every system in each group with its interval. Best: {leaders}.",
                "Mean and 95 % interval of each system in each group.",
            ),
            Table.of("Mean (95 % interval)", pd.DataFrame(texts, means.index), means == means.max()),
        ],
    )


def _best_marked(caption: str, means: pd.DataFrame, columns: Sequence[str] | None = None) -> Table:
    """A table whose highest figures stand out, of these columns or of all."""
    best = means == means.max()
    if columns is not None:
        best[means.columns.difference(list(columns))] = False
    return Table.of(caption, _written(means, VALUE), best)


def _written(table: pd.DataFrame, form: str) -> pd.DataFrame:
    return table.map(lambda value: _text(value, form)).astype(object)


def _text(value: float, form: str) -> str:
    return NOTHING if np.isnan(value) else form.format(value)


def _cutoff(metric: str) -> int:
    return int(metric.rpartition("@")[2])
