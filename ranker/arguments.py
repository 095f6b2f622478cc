"""What callers pass to an engine, checked: every mistake is one line that names the argument."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.users import UserHistories
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories
from retrieval.ids import Ids
from retrieval.interactions import Interactions

OnUnknown = Literal["popular", "raise"]
View = Literal["next", "lasting"]
Horizon = Literal["next", "lasting", "auto"]
SURROGATE = re.compile("[\ud800-\udfff]")  # what no text has, and no file takes


def check_k(k: int, most: int, n_items: int) -> None:
    """Raise InputError unless ``k`` is an integer from 1 to ``most``."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or not 1 <= k <= most:
        raise InputError(f"k = {k!r}, but it must be an integer from 1 to {most}: the catalogue has {n_items} items.")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise InputError unless the value of this argument is one of a Literal's."""
    if value not in get_args(choices):
        raise InputError(f"{name} = {value!r}, but it must be one of {', '.join(get_args(choices))}.")


def check_horizon(
    horizon: Horizon, has_lasting: bool, history: pd.DataFrame | None = None, among: Any = Horizon
) -> None:
    """Raise InputError unless this is a horizon that the engine has a view of, and what it depends on is known."""
    check_choice("horizon", horizon, among)
    if horizon != "next" and not has_lasting:
        raise InputError(
            f"horizon = {horizon!r}, but this engine has no view of lasting taste. Fit one with lasting.enabled: true "
            "and a source that knows of it, such as als."
        )
    if horizon == "auto" and isinstance(history, pd.DataFrame) and "datetime" not in history:
        raise InputError(
            "horizon = 'auto', but history has no column 'datetime', which tells how long ago its events were. Add it, "
            "or say next or lasting."
        )


def check_known(ids: Sequence[Any], lengths: NDArray[np.int64]) -> None:
    """Raise InputError if one of these users has a history of length 0."""
    unknown = lengths == 0
    if unknown.any():
        raise InputError(
            f"{int(unknown.sum())} of {len(ids)} users are unknown (first: {ids[int(unknown.argmax())]!r}). Check the "
            "ids, pass their history, or let on_unknown='popular' answer for them."
        )


def list_names(list_ids: str | Sequence[str], ids: Sequence[Any], given: bool) -> tuple[str, ...]:
    """An id for each user's list.

    Args:
        list_ids: One for each user, or a single one for a single user.
        ids: The users.
        given: Whether their histories were given with the question: of such users nothing is logged.

    Raises:
        InputError: There is not one for each, one is no text or occurs twice, or histories were given.
    """
    if given:
        raise InputError(
            "list_ids: lists for a given history are not logged, since nobody's later events belong to it."
        )
    names = (list_ids,) if isinstance(list_ids, str) else tuple(list_ids) if isinstance(list_ids, Iterable) else ()
    texts = {name for name in names if isinstance(name, str) and name and not SURROGATE.search(name)}
    if not len(texts) == len(names) == len(ids):
        raise InputError(
            f"list_ids: {len(texts)} different texts in {len(names)} ids for {len(ids)} users; give each list a "
            "new text of its own."
        )
    return names


def listed(user_ids: Ids) -> list[Any]:
    """The users as a list.

    Raises:
        InputError: This is no list of ids, it is empty, or an id occurs twice.
    """
    if isinstance(user_ids, (str, bytes)) or not hasattr(user_ids, "__len__"):
        raise InputError(f"user_ids = {user_ids!r}: pass a list of ids, also for one user.")
    ids = list(user_ids)
    if not ids:
        raise InputError("user_ids is empty; pass at least one user.")
    try:
        repeated = len(ids) - len(set(ids))
    except TypeError as error:
        raise InputError(f"user_ids holds what is no id ({error}); pass integers or strings.") from error
    if repeated:
        raise InputError(f"user_ids holds {repeated} ids twice; pass each user once.")
    return ids


def asked(
    users: UserHistories,
    catalogue: Catalogue,
    user_ids: Ids | None,
    history: pd.DataFrame | None,
    on_unknown: OnUnknown,
) -> tuple[Sequence[Any], Histories]:
    """Who is asked for, and what they did: by what is known of them or, where it is given, by a table.

    Raises:
        InputError: Nobody is, the table cannot be used, or a user is unknown and may not be.
    """
    check_choice("on_unknown", on_unknown, OnUnknown)
    if history is not None:
        return given_histories(user_ids, history, catalogue)
    if user_ids is None:
        raise InputError("recommend: pass user_ids, or a history table whose users are meant.")
    ids = listed(user_ids)
    histories = users.histories(ids)
    if on_unknown == "raise":
        check_known(ids, histories.lengths)
    return ids, histories


def given_histories(
    user_ids: Ids | None, history: pd.DataFrame, catalogue: Catalogue
) -> tuple[Sequence[Any], Histories]:
    """The users of a table ``user_id, item_id`` and optionally ``weight, datetime``, and what they did by it.

    Raises:
        InputError: The table cannot be used, or holds users who are not asked for.
    """
    if not isinstance(history, pd.DataFrame):
        raise InputError(f"history: pass a DataFrame with user_id and item_id, not a {type(history).__name__}.")
    for name in ("user_id", "item_id"):
        if name not in history.columns:
            raise InputError(f"history: no column {name!r}; the columns are {', '.join(map(str, history.columns))}.")
    ids = listed(history["user_id"].unique().tolist() if user_ids is None else user_ids)
    table = history.assign(weight=history.get("weight", 1.0), datetime=history.get("datetime", pd.Timestamp(0)))
    return ids, Interactions.from_frame(table, catalogue, ids, "history").histories


def query_texts(query: str | Sequence[str], n_users: int) -> tuple[str, ...]:
    """One query for each user.

    Raises:
        InputError: This is neither one text nor one for each user, or a text is empty.
    """
    if not isinstance(query, (str, Sequence, np.ndarray, pd.Series)):
        raise InputError(f"query = {query!r}: pass one text for all users, or a list with one for each.")
    texts = (query,) * n_users if isinstance(query, str) else tuple(query)
    if len(texts) != n_users or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(
            f"query: {len(texts)} texts for {n_users} users; pass one for all, or one each, none of them empty."
        )
    return texts
