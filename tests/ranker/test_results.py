"""Per-user results come back as they were written, and a file that holds none is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders.errors import InputError
from ranker.evaluation import PerUserResults, compare_results, holm, paired_bootstrap, read_per_user, write_per_user

KEY = "ranker.per_user"


def table(users: object, seed: int = 0) -> pd.DataFrame:
    ids = pd.Series(users)
    values = np.random.default_rng(seed).random((len(ids), 2))
    return pd.DataFrame({"user_id": ids, "ndcg@5": values[:, 0], "novelty@10": values[:, 1]})


def results(users: object = range(50), seed: int = 0, split: str = "leave-one-out") -> PerUserResults:
    return PerUserResults({"als": table(users, seed), "engine": table(users, seed + 100)}, split, (5, 10))


@pytest.mark.parametrize("users", [[3, 1, 2**62], ["b", "a", "007"]])
def test_what_is_written_is_read(users: list[object], tmp_path: Path) -> None:
    written = results(users)
    written.per_user["als"].loc[1, "novelty@10"] = np.nan
    write_per_user(written, tmp_path / "r.parquet")
    found = read_per_user(tmp_path / "r.parquet")
    assert (found.split, found.cutoffs, found.metrics) == ("leave-one-out", (5, 10), ["ndcg@5", "novelty@10"])
    assert list(found.per_user) == ["als", "engine"]
    for name, frame in written.per_user.items():
        pd.testing.assert_frame_equal(found.per_user[name], frame)


def test_the_file_is_plain_parquet_with_the_protocol_in_its_metadata(tmp_path: Path) -> None:
    write_per_user(results(), tmp_path / "r.parquet")
    file = pq.read_table(tmp_path / "r.parquet")
    assert file.column_names == ["user_id", "system", "ndcg@5", "novelty@10"]
    told = json.loads(file.schema.metadata[KEY.encode()])
    assert told == {"split": "leave-one-out", "cutoffs": [5, 10], "format": 1}


METADATA = {"split": "x", "cutoffs": [5], "format": 1}
ROWS = {"user_id": [1, 2], "system": ["a", "a"], "ndcg@5": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("rows", "metadata", "message"),
    [
        (ROWS, None, "says not what was measured"),
        (ROWS, "{", "metadata ranker.per_user is not as written .*JSON"),
        (ROWS, {"split": "x", "format": 1}, r"metadata .* \(cutoffs: Field required\)"),
        (ROWS, {**METADATA, "cutoffs": ["5"]}, "cutoffs.0"),
        (ROWS, {**METADATA, "cutoffs": []}, "cut-offs are"),
        (ROWS, {**METADATA, "cutoffs": [0]}, "cut-offs are"),
        (ROWS, {**METADATA, "format": 2}, "format: Input should be 1"),
        (ROWS, {**METADATA, "cutoffs": [10]}, "'ndcg@5' is no metric at one of the cut-offs 10"),
        ({**ROWS, "ndcg": [0.5, 1.0]}, METADATA, "'ndcg' is no metric"),
        ({**ROWS, "ndcg@5": ["a", "b"]}, METADATA, "ndcg@5 has to be float64"),
        ({**ROWS, "ndcg@5": [1.0, np.inf]}, METADATA, "finite"),
        ({**ROWS, "user_id": [1, 1]}, METADATA, "user_id: Id 1 occurs more than once"),
        ({**ROWS, "user_id": [1, None]}, METADATA, "user_id: Ids are all integers or all strings"),
        ({**ROWS, "user_id": [0.5, 1.5]}, METADATA, "user_id: Ids are all integers or all strings"),
        ({**ROWS, "user_id": [[1], [2]]}, METADATA, "user_id: "),
        ({**ROWS, "system": ["a", None]}, METADATA, "system holds what is no name"),
        ({**ROWS, "system": [1, 2]}, METADATA, "system holds what is no name"),
        ({"user_id": [1], "ndcg@5": [0.5]}, METADATA, "no column 'system'"),
        ({"user_id": [1], "system": ["a"]}, METADATA, "hold no metric"),
        ({name: values[:0] for name, values in ROWS.items()}, METADATA, "no system was measured|no name"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_in_one_line(
    rows: dict[str, list[object]], metadata: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.parquet"
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    pq.write_table(pa.table(rows).replace_schema_metadata({KEY: text} if metadata else None), path)
    with pytest.raises(InputError, match=message) as caught:
        read_per_user(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_other_kinds_and_files_cut_short_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "r.parquet"
    write_per_user(results(), whole)
    (tmp_path / "short.parquet").write_bytes(whole.read_bytes()[:-100])
    for name, message in {
        "short.parquet": "cannot be read as PARQUET",
        "none.parquet": "does not exist",
        "r.csv": "are a .parquet file",
    }.items():
        with pytest.raises(InputError, match=message):
            read_per_user(tmp_path / name)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    names = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    rows = pa.table({**ROWS, "system": names}).replace_schema_metadata({KEY: json.dumps(METADATA)})
    pq.write_table(rows, tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"cannot be read as PARQUET: .*UTF8"):
        read_per_user(tmp_path / "r.parquet")


def test_no_damage_escapes_as_another_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "r.parquet", np.random.default_rng(0)
    write_per_user(results(), path)
    whole, n_refused = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_per_user(path)
        except InputError:
            n_refused += 1
    assert n_refused > 50  # in the rest, what was hit says nothing, or is a value that could be one


def test_results_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="'b' have the metrics ndcg@5, and those of others ndcg@5, novelty@10"):
        PerUserResults({"a": table([1]), "b": table([1])[["user_id", "ndcg@5"]]}, "x", (5, 10))
    with pytest.raises(InputError, match="no user_id"):
        PerUserResults({"a": table([1]).drop(columns="user_id")}, "x", (5, 10))


def shuffled(one: PerUserResults, seed: int) -> PerUserResults:
    rows = {name: frame.sample(frac=1, random_state=seed) for name, frame in one.per_user.items()}
    return PerUserResults(rows, one.split, one.cutoffs)


def test_users_are_paired_by_id_whatever_their_order() -> None:
    before, after = results(seed=0), results(seed=1)
    found = compare_results(shuffled(before, 0), shuffled(after, 1), metrics=["ndcg@5", "novelty@10"], seed=3)
    assert list(zip(found["system"], found["metric"], strict=True)) == [
        ("als", "ndcg@5"), ("als", "novelty@10"), ("engine", "ndcg@5"), ("engine", "novelty@10")
    ]  # fmt: skip
    for _, row in found.iterrows():
        first, second = (one.per_user[row["system"]][row["metric"]].to_numpy() for one in (before, after))
        paired = paired_bootstrap(first, second, seed=3)
        assert (row["difference"], row["low"], row["high"]) == (paired.difference, paired.low, paired.high)
    np.testing.assert_array_equal(found["p_holm"], holm(found["p_value"].to_numpy()))


def test_users_of_one_side_alone_are_left_out_only_if_asked() -> None:
    before, after = results(range(50)), results(range(10, 70), seed=1)
    before.per_user["engine"].loc[20, "ndcg@5"] = np.nan  # not known, so not in common
    with pytest.raises(InputError, match=r"of 49 users in the first results and of 60 in the second, 39 of them"):
        compare_results(before, after, metrics=["ndcg@5"], systems=["engine"])
    found = compare_results(before, after, metrics=["ndcg@5"], systems=["engine"], common=True).iloc[0]
    users = [user for user in range(10, 50) if user != 20]
    one, other = (part.per_user["engine"].set_index("user_id").loc[users, "ndcg@5"] for part in (before, after))
    assert found["n_users"] == 39
    assert found["difference"] == pytest.approx((other - one).mean())
    for strangers in (range(100, 150), ["a", "b"]):
        with pytest.raises(InputError, match=r"0 of them in common: .* measure the same users twice"):
            compare_results(before, results(strangers), metrics=["ndcg@5"], common=True)


def test_systems_and_metrics_that_are_not_there_are_named(caplog: pytest.LogCaptureFixture) -> None:
    both = results()
    alone = PerUserResults({"als": table(range(50))}, "global-temporal", (5, 10))
    assert list(compare_results(both, alone, metrics=["ndcg@5"])["system"]) == ["als"]
    assert "The first results are of leave-one-out, the second of global-temporal" in caplog.text
    with pytest.raises(InputError, match="The second results have no system 'engine', only als"):
        compare_results(both, alone, metrics=["ndcg@5"], systems=["engine"])
    with pytest.raises(InputError, match=r"The first results have no metric 'ndcg@10', only ndcg@5, novelty@10"):
        compare_results(both, alone)
    other = PerUserResults({"text": table(range(50))}, "leave-one-out", (5, 10))
    with pytest.raises(InputError, match="No system is in both results: the first has als, engine, the second text"):
        compare_results(both, other)
