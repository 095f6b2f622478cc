"""`--report`: the page has the figures that the command prints; what cannot be written is refused before any work."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from small_site import N_ITEMS, N_USERS, Run, Shelf, files_below

from ranker.data import read_interactions
from ranker.evaluation import PerUserResults, global_temporal, leave_one_out, write_per_user

SLICES = "Mean (95 % interval)"


def as_printed(page: Page, told: dict) -> None:
    """Assert that the tables of the page are those of the command's JSON."""
    summary = pd.DataFrame(told["summary"]).set_index("metric").T
    for k in (5, 10, 20):
        table = page.table(f"At cut-off {k}")
        pd.testing.assert_frame_equal(table, summary[table.columns].map("{:.4f}".format), check_names=False)
    interval = told["engine"]["ndcg@10"]
    shown = [f"{interval[name]:.4f}" for name in ("mean", "low", "high")]
    assert [*page.table("Mean and 95 % interval").loc["engine"]] == shown
    assert page.fetched() == []


def test_a_backtest_is_reported_as_it_is_printed(shelf: Shelf, tmp_path: Path, ranker: Run) -> None:
    path = tmp_path / "report.html"
    told = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast",
        "--split", "leave-one-out", "--report", path, "--json",
    ).json  # fmt: skip
    assert told["engine"]["report"] == str(path)
    assert [*tmp_path.iterdir()] == [path]
    page = Page(path)
    as_printed(page, told)
    parts = leave_one_out(read_interactions(shelf.interactions)[0])
    facts = dict(zip(page.texts, page.texts[1:], strict=False))
    assert (facts["Items"], facts["Events fitted on"]) == (str(N_ITEMS), str(len(parts.train)))
    assert any(f"leave-one-out, holdout 1, of {shelf.interactions.name}." in text for text in page.texts)
    # 4 or 5 events each, most of them 5: no two groups
    assert not any("history" in heading for heading in page.headings)
    counts = parts.train["item_id"].value_counts().reindex(range(1, N_ITEMS + 1), fill_value=0)
    order = counts.sort_values(ascending=False, kind="stable")
    head = order.index[: int(np.searchsorted(order.cumsum(), 0.8 * order.sum())) + 1]
    n_head = int(parts.test["item_id"].isin(head).sum())
    assert [*page.table(SLICES).columns] == [f"head ({n_head} users)", f"tail ({N_USERS - n_head} users)"]


def test_a_replay_is_sliced_by_what_each_list_knew(shelf: Shelf, tmp_path: Path, ranker: Run) -> None:
    path = tmp_path / "report.html"
    told = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast",
        "--split", "prequential", "--test-fraction", 0.5, "--report", path, "--json",
    ).json  # fmt: skip
    page = Page(path)
    as_printed(page, told)
    parts = global_temporal(read_interactions(shelf.interactions)[0], 0.5)
    known, lists = Counter(parts.train["user_id"]), []
    for user in parts.test["user_id"]:
        lists.append((user, known[user]))
        known[user] += 1
    facts = dict(zip(page.texts, page.texts[1:], strict=False))
    assert facts["Lists"] == str(len(lists))
    median = int(np.median([length for _, length in lists if length]))
    new = {user for user, length in lists if not length}
    short = {user for user, length in lists if 1 <= length <= median}
    long = {user for user, length in lists if length > median}
    assert [*page.table(SLICES).columns] == [
        f"new ({len(new)} user)", f"1 to {median} events ({len(short)} users)",
        f"{median + 1} events and more ({len(long)} users)",
    ]  # fmt: skip


def test_a_saved_engine_is_reported(model: Path, tmp_path: Path, ranker: Run) -> None:
    rows = [(user, 1 + (user * 7 + step) % 30) for user in range(1, N_USERS + 1) for step in range(2)]
    test = tmp_path / "<b>later.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id"]).to_csv(test, index=False)
    path = tmp_path / "report.html"
    told = ranker("evaluate", model, test, "--report", path, "--json").json
    page = Page(path)
    as_printed(page, told)
    assert f"model on {test.name}" in page.texts
    effect = told["engine"]["effect_of_the_cross_encoder"]
    assert page.table("Each system (after) against candidates (before)").loc["cross-encoder", "difference"] == (
        f"{effect['difference']:+.4f}"
    )


def test_a_comparison_is_reported_as_it_is_printed(tmp_path: Path, ranker: Run) -> None:
    files = []
    for name, shift in (("before", 0.0), ("after", 0.1)):
        values = np.random.default_rng(0).random(50) + shift
        files.append(tmp_path / f"{name}.parquet")
        table = pd.DataFrame({"user_id": range(50), "ndcg@10": values, "hr@10": values**2})
        write_per_user(PerUserResults({"als": table, "engine": table}, "a split", (10,)), files[-1])
    path = tmp_path / "report.html"
    told = ranker("compare", *files, "--metric", "hr@10,ndcg@10", "--report", path, "--json").json
    assert told["compared"]["report"] == str(path)
    page = Page(path)
    assert page.headings == ["hr@10", "ndcg@10"]
    for nth, metric in enumerate(page.headings):
        rows = [row for row in told["comparisons"] if row["metric"] == metric]
        table = page.table("Each system before and after", nth)
        assert [*table.index] == [row["system"] for row in rows] == ["als", "engine"]
        assert [*table["after"]] == [f"{row['mean_after']:.4f}" for row in rows]
        assert [*table["p, Holm"]] == [f"{row['p_holm']:.4f}" for row in rows]


@pytest.mark.parametrize("command", ["evaluate", "backtest", "compare"])
def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    command: str, shelf: Shelf, tmp_path: Path, ranker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # files that are not there would be refused next
    words = [command, tmp_path / "none", tmp_path / "none.csv"]
    ranker(*words, "--report", tmp_path / "report.pdf").refused("report.pdf", ".html")
    ranker(*words, "--report", tmp_path / "no folder" / "report.html").refused("no folder")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    ranker(*words, "--report", tmp_path / "report.html").refused("matplotlib", 'pip install "hybrid-ranker[report]"')
    assert files_below(tmp_path) == set()
