"""What is said of a log, on one that can be counted by hand."""

import numpy as np
import pandas as pd

from bench.logs import facts_of

ITEMS = pd.DataFrame({"item_id": range(30), "title": [f"t{n}" for n in range(30)], "text": "x"})
DAYS = {
    1: [0, 0, 0, 0, 0],  # all in one second
    2: [0, 1, 2, 3, 3],  # several days, the last two in one second
    3: [0, 0, 0.5, 1],  # exactly a day, the first two in one second
    4: [0, 1, 2, 3, 50],  # comes back in the newest tenth of 20 ratings
    5: [60],  # comes there for the first time
}


def test_a_log_is_counted():
    rows = [(user, item, 5, day) for user, days in DAYS.items() for item, day in enumerate(days)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "day"])
    log["datetime"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(log.pop("day"), unit="D")
    found = facts_of(log, ITEMS)
    assert (found["ratings"], found["users"], found["films"], found["films that nobody rated"]) == (20, 5, 30, 25)
    np.testing.assert_allclose(
        [value for name, value in found.items() if name.startswith("share")], [9 / 20, 2 / 5, 3 / 5]
    )
    assert found["users who liked something in the newest tenth"] == 2
    assert found["of them, users with ratings before it"] == 1
