"""Impressions: which items a user was shown in which list, as events of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ranker.feedback.events import COLUMNS, DTYPES, IMPRESSION

ENGINE = "engine"  # the source of impressions that an engine logs itself


def impressions(lists: pd.DataFrame, list_ids: Mapping[Any, str], version: str) -> pd.DataFrame:
    """An event for each item of lists that are shown now.

    Args:
        lists: ``user_id, item_id, score, rank``, and ``propensity`` where chance had a part.
        list_ids: User → id of their list.
        version: Of what ranked them.

    Returns:
        Columns ``ranker.feedback.COLUMNS``, as ``checked_events`` gives them.
    """
    ids = lists["user_id"].map(list_ids).astype("str")
    events = {
        "event_id": ids + "/" + lists["rank"].astype("str"),
        "user_id": lists["user_id"],
        "item_id": lists["item_id"],
        "kind": IMPRESSION,
        "value": lists["rank"],
        "datetime": pd.Timestamp.now("UTC").tz_localize(None),
        "source": ENGINE,
        "list_id": ids,
        "score": lists["score"],
        "propensity": lists["propensity"] if "propensity" in lists else float("nan"),
        "version": version,
    }
    return pd.DataFrame(events, columns=list(COLUMNS)).astype(DTYPES)
