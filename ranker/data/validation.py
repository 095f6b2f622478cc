"""What was found wrong with a table, row by row, and what was done about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError

OnBadRows: TypeAlias = Literal["raise", "drop"]

N_EXAMPLES = 3
LONGEST_EXAMPLE = 60  # characters: an error stays one readable line


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem in one table.

    Attributes:
        code: Stable short name, for programs: ``missing_id``, ``mixed_ids``, ``unreadable_time``,
            ``bad_weight``, ``no_liking``, ``missing_text``, ``duplicate_row``, ``duplicate_item`` or
            ``unknown_item``.
        count: Rows that have it.
        columns: Columns it concerns, under the library's names.
        what: The problem in words, for people.
        examples: The first rows that have it, at most three: (row number, value). Rows are numbered from 1
            and the header line of a file is not counted.
    """

    code: str
    count: int
    columns: tuple[str, ...]
    what: str
    examples: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        rows = ", ".join(f"row {row}: {value}" if value else f"row {row}" for row, value in self.examples)
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.what}: {self.count:,} ({rows}{more})"


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What reading one table found.

    Attributes:
        source: The file, or a word for the DataFrame.
        rows_read: Rows in the source.
        rows_kept: Rows in the table that was returned.
        findings: One per kind of problem, in the order in which they were looked for.
    """

    source: str
    rows_read: int
    rows_kept: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Return one line for the table and one for each finding."""
        kept = f"{self.source}: {self.rows_kept:,} of {self.rows_read:,} rows kept"
        if not self.findings:
            return f"{kept}, nothing to report"
        return "\n".join([kept, *(f"  {finding}" for finding in self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain lists, dicts, strings and integers, ready for JSON."""
        return asdict(self)


class RowChecks:
    """Collects the findings about one table's rows, then settles them in one error or one report.

    Args:
        source: What the error and the report call the table.
        n_rows: Rows that were read.
        on_bad_rows: ``raise`` to refuse the table if any row is bad, ``drop`` to leave bad rows out.

    Raises:
        InputError: If `on_bad_rows` is neither, or the table has no rows.
    """

    def __init__(self, source: str, n_rows: int, on_bad_rows: OnBadRows) -> None:
        if on_bad_rows not in ("raise", "drop"):
            raise InputError(f"on_bad_rows is {on_bad_rows!r}: it takes 'raise' or 'drop'.")
        if n_rows == 0:
            raise InputError(f"{source} has columns but no rows: there is nothing to read.")
        self._source = source
        self._on_bad_rows = on_bad_rows
        self._bad: list[Finding] = []
        self._noted: list[Finding] = []
        self._keep = np.ones(n_rows, dtype=np.bool_)

    def refuse(
        self,
        code: str,
        rows: NDArray[np.bool_],
        columns: Sequence[str],
        what: str,
        values: pd.Series | None = None,
    ) -> None:
        """Mark `rows` as unusable; `values` are what the examples show."""
        if rows.any():
            self._bad.append(_finding(code, rows, columns, what, values))
            self._keep &= ~rows

    def leave_out(
        self,
        code: str,
        rows: NDArray[np.bool_],
        columns: Sequence[str],
        what: str,
        values: pd.Series | None = None,
    ) -> None:
        """Leave harmless `rows` out, whatever `on_bad_rows` says."""
        self.note(code, rows, columns, what, values)
        self._keep &= ~rows

    def note(
        self,
        code: str,
        rows: NDArray[np.bool_],
        columns: Sequence[str],
        what: str,
        values: pd.Series | None = None,
    ) -> None:
        """Report `rows` and keep them."""
        if rows.any():
            self._noted.append(_finding(code, rows, columns, what, values))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(rows,) True where no check so far has refused the row or left it out."""
        return self._keep.copy()

    def settle(self) -> ValidationReport:
        """Return the report; `kept` says which rows go on.

        Raises:
            InputError: If rows are bad and bad rows are refused, or if no row is left.
        """
        n_rows, n_kept = len(self._keep), int(self._keep.sum())
        bad = "; ".join(str(finding) for finding in self._bad)
        if bad and self._on_bad_rows == "raise":
            raise InputError(
                f"{self._source} has rows that cannot be used. {bad}. "
                "Correct them, or leave them out with on_bad_rows='drop' (--on-bad-rows drop)."
            )
        if n_kept == 0:
            raise InputError(f"{self._source}: none of its {n_rows:,} rows can be used. {bad}.")
        return ValidationReport(self._source, n_rows, n_kept, (*self._bad, *self._noted))


def check_items_known(
    interactions: pd.DataFrame, items: pd.DataFrame, *, on_bad_rows: OnBadRows = "raise", name: str = "interactions"
) -> tuple[pd.DataFrame, ValidationReport]:
    """Check that every interaction is with an item of the catalogue.

    Args:
        interactions: What `read_interactions` returned; left unchanged.
        items: What `read_items` returned; left unchanged.
        on_bad_rows: ``raise`` to refuse the table, ``drop`` to leave interactions with unknown items out.
        name: What the report calls the table.

    Returns:
        The interactions with known items, in their order, and what was found.

    Raises:
        InputError: If items are unknown and `on_bad_rows` is ``raise``; if no interaction is left; or if one
            table has integer ids and the other strings, where no id could ever match.
    """
    checks = RowChecks(name, len(interactions), on_bad_rows)
    theirs, ours = interactions["item_id"], items["item_id"]
    if pd.api.types.is_integer_dtype(theirs) != pd.api.types.is_integer_dtype(ours):
        raise InputError(
            f"item_id is {theirs.dtype} in the {name} and {ours.dtype} in the items (first: "
            f"{theirs.iloc[0]!r} and {ours.iloc[0]!r}), so no id can match. Give both tables ids of one "
            "kind: read one into a DataFrame and pass it with .astype({'item_id': 'str'})."
        )
    unknown = ~theirs.isin(ours).to_numpy(dtype=np.bool_)
    # the table is sorted by now, so a row's number says little to whoever looks for it in a file
    what = f"{name}, numbered by time, with an item that is not in the items"
    whose = theirs.astype("str") + " of user " + interactions["user_id"].astype("str")
    checks.refuse("unknown_item", unknown, ["item_id"], what, whose)
    report = checks.settle()
    return interactions[checks.kept].reset_index(drop=True), report


def _finding(
    code: str, rows: NDArray[np.bool_], columns: Sequence[str], what: str, values: pd.Series | None
) -> Finding:
    first = np.flatnonzero(rows)[:N_EXAMPLES]
    shown = [""] * len(first) if values is None else [_shorten(value) for value in values.iloc[first]]
    examples = tuple((int(row) + 1, value) for row, value in zip(first, shown, strict=True))
    return Finding(code, int(rows.sum()), tuple(columns), what, examples)


def _shorten(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_EXAMPLE else f"{text[:LONGEST_EXAMPLE]}…"
