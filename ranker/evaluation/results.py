"""Per-user results as a file, so that what was measured on one day can be compared with what is measured on another.

One Parquet file: ``user_id``, ``system``, and a float64 column for each metric at each cut-off, with what they were
measured on in the schema's metadata, as JSON under the key ``ranker.per_user``. A write that is cut short leaves a file
that cannot be read, since Parquet's footer comes last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from encoders.errors import InputError
from ranker.data.table import read_table
from retrieval.ids import IdMap

METADATA = b"ranker.per_user"
IDS = ("user_id", "system")
METRIC_NAME = re.compile(r"[^@]+@([1-9][0-9]*)")


@dataclass(frozen=True, eq=False)
class PerUserResults:
    """Every user's metrics under every system.

    Attributes:
        per_user: System → one row per user: ``user_id`` (all integers or all strings, each once) and metrics named
            ``name@k``, float64, the same for every system; NaN where a metric is undefined.
        split: What was measured on, in words, such as "leave-one-out, holdout 1".
        cutoffs: Every k at which metrics were taken.

    Raises:
        InputError: If a table is not so.
    """

    per_user: Mapping[str, pd.DataFrame]
    split: str
    cutoffs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.per_user:
            raise InputError("There are no results: no system was measured.")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise InputError(f"The cut-offs are {list(self.cutoffs)}: they have to be ranks, from 1.")
        metrics = None
        for system, table in self.per_user.items():
            _check_table(f"The results of {system!r}", table, self.cutoffs)
            own = _metrics(table)
            metrics = own if metrics is None else metrics
            if own != metrics:
                raise InputError(
                    f"The results of {system!r} have the metrics {', '.join(own)}, and those of others "
                    f"{', '.join(metrics)}: take the same of all."
                )

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, ``name@k``."""
        return _metrics(next(iter(self.per_user.values())))


@dataclass(frozen=True)
class _Metadata:
    split: str
    cutoffs: tuple[int, ...]
    format: Literal[1] = 1


def write_per_user(results: PerUserResults, path: Path) -> None:
    """Write the results to one Parquet file, over what is there.

    Args:
        results: To write.
        path: The file.

    Raises:
        OSError: The disk refused.
    """
    tables = [table.assign(system=system) for system, table in results.per_user.items()]
    columns = pa.Table.from_pandas(pd.concat(tables)[[*IDS, *results.metrics]], preserve_index=False)
    metadata = TypeAdapter(_Metadata).dump_json(_Metadata(results.split, results.cutoffs))
    pq.write_table(columns.replace_schema_metadata({METADATA: metadata}), path, compression="zstd")


def read_per_user(path: Path) -> PerUserResults:
    """Read what `write_per_user` wrote; the file is not trusted.

    Args:
        path: A ``.parquet`` file.

    Raises:
        InputError: The file is missing, damaged, of another kind, or holds what cannot be results.
    """
    if path.suffix != ".parquet":
        raise InputError(f"{path}: per-user results are a .parquet file, as ranker evaluate --out writes it.")
    table = read_table(path)
    try:
        metadata = TypeAdapter(_Metadata).validate_json((pq.read_schema(path).metadata or {})[METADATA], strict=True)
    except KeyError as error:
        raise InputError(
            f"{path} is Parquet, but says not what was measured: it holds no per-user results. Write them with "
            "ranker evaluate --out or ranker backtest --out."
        ) from error
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'JSON'}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path}: its metadata {METADATA.decode()} is not as written ({reason}).") from error
    absent = [name for name in IDS if name not in table]
    if absent:
        raise InputError(f"{path} has no column {' and no column '.join(map(repr, absent))}: write it again.")
    if table["system"].isna().any() or pd.api.types.infer_dtype(table["system"]) not in ("string", "empty"):
        raise InputError(f"{path}: system holds what is no name; it has to be a string in every row.")
    try:
        users = table["user_id"]
        whole = users.dtype.kind == "i" and not users.isna().any()
        table = table.assign(user_id=users.astype(np.int64)) if whole else table
        of_systems = {str(name): part.drop(columns="system") for name, part in table.groupby("system", sort=False)}
        per_user = {name: part.reset_index(drop=True) for name, part in of_systems.items()}
        return PerUserResults(per_user, metadata.split, metadata.cutoffs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _metrics(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if name not in IDS]


def _check_table(where: str, table: pd.DataFrame, cutoffs: tuple[int, ...]) -> None:
    if "user_id" not in table or table.empty:
        raise InputError(f"{where} have {'no rows' if 'user_id' in table else 'no user_id'}: measure them again.")
    try:
        IdMap(table["user_id"])
    except InputError as error:
        raise InputError(f"{where}: user_id: {error}") from error
    metrics = _metrics(table)
    if not metrics:
        raise InputError(f"{where} hold no metric.")
    for name in metrics:
        match = METRIC_NAME.fullmatch(name)
        if match is None or int(match[1]) not in cutoffs:
            at = ", ".join(map(str, cutoffs))
            raise InputError(f"{where}: {name!r} is no metric at one of the cut-offs {at}, such as ndcg@{cutoffs[0]}.")
        if table[name].dtype != np.float64 or np.isinf(table[name]).any():
            raise InputError(f"{where}: {name} has to be float64 and finite, or NaN where undefined.")
