"""Where a study is kept, and whether a study that is there is the one that shall go on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from encoders.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from optuna import Study

SEARCH = "search"  # the attribute of a study that says what it searches
FITTED = ("item_id", "title", "text")  # the columns of the items that a fit reads


def check_storage(path: Path | str | None) -> None:
    """Refuse, before any work, a file that no study can be kept in.

    Raises:
        InputError: There is no such folder, it is a folder itself, or it holds something else.
        ArtifactError: It is a file that SQLite cannot read.
    """
    if path is None:
        return
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: {'is' if path.is_dir() else 'lies in'} no {'file' if path.is_dir() else 'folder'}.")
    if set(str(path)) & set("?%{}"):  # the path becomes a part of a URL and of a template
        raise InputError(
            f"{path}: Optuna takes no storage with ?, %, {{ or }} in its path; rename the file or the folder."
        )
    if path.exists() and path.stat().st_size:
        try:
            with closing(sqlite3.connect(path)) as file:
                ours = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone()
        except sqlite3.Error as error:
            raise ArtifactError(f"{path}: cannot be read as SQLite ({error}). Name another file.") from error
        if ours is None:
            raise InputError(f"{path}: holds something else than studies of Optuna's. Name another file.")


@contextmanager
def opened(path: Path | str | None, name: str, search: Mapping[str, Any]) -> Iterator[Study]:
    """A study, begun or going on.

    Args:
        path: SQLite file; None keeps the study in memory.
        name: Of the study.
        search: What decides a trial's value: a study goes on only where all of it is the same.

    Raises:
        InputError: The study that is there is another search.
        ArtifactError: The file cannot be read or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    stored = None
    try:
        stored = None if path is None else optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = optuna.create_study(
            storage=stored,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
        _check_same(study, json.loads(json.dumps(search)), path)
        yield study
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ArtifactError(f"{path}: the study cannot be kept there ({reason}). Make room or name another.") from error
    finally:
        if stored is not None:
            stored.remove_session()
            stored.engine.dispose()


def fingerprint(interactions: pd.DataFrame, items: pd.DataFrame) -> str:
    """What tells one pair of tables from another, of the columns that a fit reads, in their order."""
    digest = hashlib.sha256()
    for table, columns in ((interactions, ("user_id", "item_id", "weight", "datetime")), (items, FITTED)):
        read = table[[name for name in columns if name in table]]
        digest.update(pd.util.hash_pandas_object(read, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _check_same(study: Study, search: dict[str, Any], path: Path | str | None) -> None:
    before = study.user_attrs.get(SEARCH)
    if before is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(SEARCH, search)
    elif before is None:
        raise InputError(f"{path}: ranker tune did not begin the study {study.study_name!r}; give another name.")
    else:
        difference = next(_differences(before, search), None)
        if difference is not None:
            raise InputError(
                f"{path}: the study {study.study_name!r} was begun with {difference}. Go on with what it was begun "
                "with, or give a new study another name."
            )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two trees differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} = {json.dumps(before)}, now {json.dumps(now)}"
