"""What was measured as a page to read and pass on: one HTML file with tables and plots that needs nothing else.

The same measurements make the same bytes: the page knows no time and draws no random name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from encoders.errors import ExtraError, InputError
from ranker.evaluation.evaluate import CANDIDATES, METRIC, Evaluation
from ranker.evaluation.slices import Groups
from ranker.installed import libraries

if TYPE_CHECKING:
    from ranker.evaluation.sections import Section

NONE: Mapping[str, Any] = MappingProxyType({})
DARK = ("#4ba3e3", "#f0803c", "#2fc29a", "#e3a3c8", "#f0b840", "#9bd4f7", "#9aa4ae")  # the plots' colours, on black


def check_report() -> None:
    """Refuse a report that cannot be made, before anything is measured for it.

    Raises:
        ExtraError: A package that draws or lays out is not installed.
    """
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise ExtraError(
                f'A report needs {name}, which is not installed. Install it with: pip install "hybrid-ranker[report]"'
            )


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    described: str,
    baseline: str | None = None,
    slices: Mapping[str, Groups] = NONE,
    beyond: pd.DataFrame | None = None,
    details: Mapping[str, str] = NONE,
) -> None:
    """Write an evaluation as one HTML file, over what is there.

    Names of systems and groups, the title and every other text are escaped.

    Args:
        path: The file.
        evaluation: What was measured, NDCG@10 among it.
        title: Of the page.
        described: The protocol in words: what was held out, and from which data.
        baseline: The system that the others are compared with; None: the fused candidates, or else the first system.
        slices: What lists are grouped by → (L,) the name of each list's group, as `history_groups` or
            `popularity_groups` give them; a list in none has None.
        beyond: System → other measures of its lists, such as the mean of `novelty`, to stand beside coverage.
        details: More facts for the head of the page, by name.

    Raises:
        ExtraError: The extra ``report`` is not installed.
        InputError: A system is no baseline, NDCG@10 was not measured, groups are not one for each list, or there are
            fewer than two users.
        OSError: The disk refused.
    """
    check_report()
    from ranker.evaluation.sections import of_evaluation

    first = next(iter(evaluation.lists.values()))
    if METRIC not in first:
        raise InputError(f"The evaluation has no {METRIC}, by which a report compares: take metrics at 10, too.")
    if baseline is None:
        baseline = CANDIDATES if CANDIDATES in evaluation.lists else next(iter(evaluation.lists))
    facts = {
        "Lists": f"{len(first):,}",
        "Users": f"{first['user_id'].nunique():,}",
        "Users left out": f"{evaluation.users_left_out:,}",
        "Seed of the bootstrap": str(evaluation.seed),
    }
    _write(path, title, described, {**facts, **details}, of_evaluation(evaluation, baseline, slices, beyond))


def write_comparison(
    path: Path, compared: pd.DataFrame, *, title: str, described: str, details: Mapping[str, str] = NONE
) -> None:
    """Write a table of paired differences as one HTML file, over what is there.

    Args:
        path: The file.
        compared: As `compare_results` gives it.
        title: Of the page; every text is escaped.
        described: What was compared, and on which split.
        details: Facts for the head of the page, by name.

    Raises:
        ExtraError: The extra ``report`` is not installed.
        OSError: The disk refused.
    """
    check_report()
    from ranker.evaluation.sections import of_comparison

    _write(path, title, described, details, of_comparison(compared))


def _write(path: Path, title: str, described: str, facts: Mapping[str, str], sections: Iterable[Section]) -> None:
    from jinja2 import Environment, StrictUndefined

    from ranker.evaluation.plots import SERIES

    template = files("ranker.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(
        title=title,
        described=described,
        facts={**facts, "Libraries": ", ".join(f"{name} {number}" for name, number in libraries().items())},
        sections=sections,
        colours=list(zip(SERIES, DARK, strict=True)),
    )
    path.write_bytes(page.encode())
