"""How sure it is that one set of results is better than another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.arguments import ReportFile
from ranker.cli.output import Output
from ranker.cli.tables import appearing, check_report_file


def compare(
    ctx: typer.Context,
    before: Annotated[
        Path,
        typer.Argument(metavar="BEFORE", help="Per-user results, from evaluate --out (.parquet).", show_default=False),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="The same of what is compared with it.", show_default=False)
    ],
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME@K,…", help="By which; else ndcg@10.")] = None,
    system: Annotated[
        list[str] | None, typer.Option(metavar="NAME,…", help="Which systems; else all that both files have.")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare the users that both have, and leave the others out.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    report: ReportFile = None,
) -> None:
    """Compare two sets of per-user results, paired by user: differences, 95% intervals, and p-values.

    p_holm is the p-value corrected for all rows of the table: below 0.05, chance would show even one
    such row in one of twenty tables.

    Example:
        ranker compare before.parquet after.parquet --metric ndcg@10,hr@10 --system engine
    """
    from ranker.evaluation import compare_results, read_per_user, write_comparison
    from ranker.evaluation.evaluate import METRIC

    output: Output = ctx.obj
    check_report_file(report)
    first, second = read_per_user(before), read_per_user(after)
    found = compare_results(
        first,
        second,
        metrics=_names(metric) or [METRIC],
        systems=_names(system) or None,
        common=common,
        seed=seed,
    )
    facts = {"before": before, "after": after, "split": second.split, "confidence": found["confidence"].iloc[0]}
    if report is not None:
        with appearing(report) as part:
            write_comparison(
                part,
                found,
                title=f"{after.name} against {before.name}",
                described=f"The same users under both, judged by {second.split}.",
                details={"Before": str(before), "After": str(after), "Seed of the resampling": str(seed)},
            )
        facts["report"] = report
    output.show(comparisons=found.drop(columns="confidence"), compared=facts)


def _names(typed: list[str] | None) -> list[str]:
    """Names from words each of which is one or several with commas between."""
    return [name.strip() for word in typed or () for name in word.split(",") if name.strip()]
