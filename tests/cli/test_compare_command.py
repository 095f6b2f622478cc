"""`compare`: the library's table of differences between two files, and its refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_site import Run

from ranker.evaluation import PerUserResults, compare_results, read_per_user, write_per_user


def write(path: Path, users: range, shift: float, split: str = "a split") -> Path:
    rng = np.random.default_rng(0)
    tables = {}
    for system in ("als", "engine"):
        values = rng.random((100, 2))[list(users)] + shift
        tables[system] = pd.DataFrame({"user_id": users, "ndcg@10": values[:, 0], "hr@10": values[:, 1] ** 2})
    write_per_user(PerUserResults(tables, split, (10,)), path)
    return path


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write(tmp_path / "before.parquet", range(80), 0.0)


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return write(tmp_path / "after.parquet", range(80), 0.1)


def test_compare_prints_the_librarys_table(before: Path, after: Path, ranker: Run) -> None:
    words = ["--metric", "ndcg@10,hr@10", "--system", "engine", "--system", "als", "--seed", 7]
    told = ranker("compare", before, after, *words, "--json").json
    expected = compare_results(
        read_per_user(before), read_per_user(after), metrics=["ndcg@10", "hr@10"], systems=["engine", "als"], seed=7
    ).drop(columns="confidence")
    pd.testing.assert_frame_equal(pd.DataFrame(told["comparisons"]), expected)
    assert told["compared"] == {
        "before": str(before), "after": str(after), "split": "a split", "confidence": 0.95
    }  # fmt: skip
    assert all(row["p_holm"] >= row["p_value"] for row in told["comparisons"])


def test_compare_takes_all_systems_and_ndcg_unless_told_otherwise(before: Path, after: Path, ranker: Run) -> None:
    done = ranker("compare", before, after, "--json")
    assert (done.code, done.err) == (0, "")
    assert [(row["system"], row["metric"]) for row in done.json["comparisons"]] == [
        ("als", "ndcg@10"), ("engine", "ndcg@10")
    ]  # fmt: skip
    assert [row["difference"] for row in done.json["comparisons"]] == pytest.approx([0.1, 0.1])
    shown = ranker("compare", before, after).out
    assert "p holm" in shown
    assert "0.1000" in shown


def test_compare_counts_the_common_users_and_takes_them_if_asked(before: Path, tmp_path: Path, ranker: Run) -> None:
    other = write(tmp_path / "other.parquet", range(30, 100), 0.1, "another split")
    ranker("compare", before, other).refused("80 users", "70 in the second", "50 of them in common", "--common")
    done = ranker("compare", before, other, "--common", "--json")
    assert {row["n_users"] for row in done.json["comparisons"]} == {50}
    assert "The first results are of a split, the second of another split" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--metric", "ndcg@5"], ["no metric 'ndcg@5'", "ndcg@10, hr@10"]),
        (["--system", "text"], ["no system 'text'", "als, engine"]),
    ],
)
def test_compare_refuses_in_one_line(words: list[str], told: list[str], before: Path, after: Path, ranker: Run) -> None:
    ranker("compare", before, after, *words).refused(*told)


def test_compare_refuses_files_that_hold_no_results(before: Path, tmp_path: Path, ranker: Run) -> None:
    ranker("compare", before, tmp_path / "none.parquet").refused("none.parquet does not exist")
    pd.DataFrame({"user_id": [1]}).to_parquet(tmp_path / "plain.parquet")
    ranker("compare", before, tmp_path / "plain.parquet").refused("plain.parquet", "ranker evaluate --out")
