"""`candidates`: those of many users, in a folder of Parquet files."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from small_site import N_USERS, Run
from tests_support import needs_spark

from ranker import Engine, load


def expected(engine: Engine, users: list[int] | None = None) -> pd.DataFrame:
    return pa.Table.from_batches(list(engine.candidates(users, k=7))).to_pandas()


def test_candidates_are_written_for_everybody_or_for_some(
    model: Path, engine: Engine, tmp_path: Path, ranker: Run
) -> None:
    out = tmp_path / "candidates"
    told = ranker("candidates", model, "-k", "7", "--out", out, "--workers", "1", "--json").json
    everybody = expected(engine)
    assert told == {
        "written": {"folder": str(out), "users": N_USERS, "rows": len(everybody), "files": 1, "version": "v0001"}
    }
    pd.testing.assert_frame_equal(pd.read_parquet(out), everybody)
    pd.DataFrame({"user_id": [4, 2]}).to_csv(tmp_path / "some.csv", index=False)
    later = tmp_path / "later"
    assert ranker("candidates", model, "-k", "7", "--out", later, "--horizon", "lasting").code == 0
    lasting = engine.recommend([4, 2], 7, horizon="lasting")[["user_id", "item_id", "rank"]]
    found = pd.read_parquet(later).set_index("user_id").loc[[4, 2]].reset_index()[lasting.columns]
    pd.testing.assert_frame_equal(found, lasting, check_dtype=False)
    some = tmp_path / "some"
    words = ("candidates", model, "-k", "7", "--out", some, "--users", tmp_path / "some.csv", "--workers", "1")
    assert ranker(*words).code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(some), expected(engine, [4, 2]))


@pytest.mark.parametrize(
    ("words", "users", "told"),
    [
        (["-k", "31"], [1], ["k = 31"]),
        (["-k", "5"], [999], ["unknown", "999"]),
        (["-k", "5"], [], ["empty"]),
        (["-k", "5", "--horizon", "lasting", "--rerank"], [1], ["rerank", "'lasting'", "Ask for one"]),
        (["-k", "5", "--workers", "0"], [1], ["workers = 0"]),
        (["-k", "5", "--users-per-shard", "0"], [1], ["users_per_shard = 0"]),
    ],
)
def test_what_cannot_be_generated_leaves_nothing_behind(
    words: list[str], users: list[int], told: list[str], model: Path, tmp_path: Path, ranker: Run
) -> None:
    pd.DataFrame({"user_id": pd.Series(users, dtype="int64")}).to_parquet(tmp_path / "users.parquet")
    out = tmp_path / "candidates"
    ranker("candidates", model, "--out", out, "--users", tmp_path / "users.parquet", *words).refused(*told)
    assert not out.exists()


def test_a_folder_of_something_else_and_a_file_without_users_are_refused(
    model: Path, tmp_path: Path, ranker: Run
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    ranker("candidates", model, "-k", "5", "--out", tmp_path / "letters").refused("dear.txt")
    pd.DataFrame({"visitor": [1]}).to_csv(tmp_path / "users.csv", index=False)
    words = ("candidates", model, "-k", "5", "--out", tmp_path / "out", "--users", tmp_path / "users.csv")
    ranker(*words).refused("no column 'user_id'", "visitor")


@pytest.mark.slow
def test_spark_gives_the_same_rows(model: Path, tmp_path: Path, ranker: Run) -> None:
    needs_spark()
    served, out = tmp_path / "served", tmp_path / "candidates"
    assert ranker("export", model, "--out", served, "--precision", "fp32").code == 0  # Spark's processes start sooner
    words = ("candidates", served, "-k", "7", "--out", out, "--engine", "spark", "--master", "local[2]")
    engine = load(served)
    everybody = expected(engine)
    engine.log.close()
    assert ranker(*words, "--json").json == {
        "written": {"folder": str(out), "rows": len(everybody), "version": "v0001"}
    }
    found = pd.read_parquet(out).sort_values(["user_id", "rank"]).reset_index(drop=True)
    everybody = everybody.sort_values(["user_id", "rank"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, everybody, rtol=1e-5, atol=1e-5)
    ranker(*words).refused("is there already")


def test_spark_without_java_names_the_version(
    model: Path, tmp_path: Path, ranker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    told = ranker("candidates", model, "-k", "7", "--out", tmp_path / "out", "--engine", "spark")
    assert told.code != 0
    assert "Java 17" in told.err
    assert "hybrid-ranker[spark]" in told.err
    assert "Traceback" not in told.err
