"""`learn`, `status` and `rollback`: learning from the log and from what comes, from the shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_site import N_ITEMS, N_USERS, Run, Shelf


@pytest.fixture(scope="module")
def learner(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved engine that can learn, and promotes easily; each test tells it events of its own."""
    from ranker import EngineConfig, fit
    from ranker.data import read_interactions, read_items

    settings = yaml.safe_load(shelf.config.read_text(encoding="utf-8"))
    settings["rerank"] = {
        "kind": "split",
        "split": {"depth": 20, "events": 4, "max_tokens": 16, "training": {"epochs": 1}},
    }
    settings["learning"] = {
        "learning_rate": 0.003, "least_lists": 20, "most_lists": 100, "measured": 1.0, "user_share": 1.0,
    }  # fmt: skip
    log, items = read_interactions(shelf.interactions)[0], read_items(shelf.items)[0]
    folder = tmp_path_factory.mktemp("learner") / "model"
    fit(log, items, EngineConfig.from_dict(settings), progress=False).save(folder)
    return folder


def lines(start: int, count: int) -> str:
    """Events of new users on the items from 20 on, which the log of the fit has less of."""
    rows = [
        {
            "event_id": f"e{n}", "user_id": N_USERS + 1 + n // 4, "item_id": 20 + n % (N_ITEMS - 19), "kind": "click",
            "datetime": 1_700_000_000 + 60 * n,
        }
        for n in range(start, start + count)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_folder_of_events_is_recorded_and_learned_and_can_be_undone(
    learner: Path, tmp_path: Path, ranker: Run
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jsonl").write_text(lines(0, 400) + "no event\n")
    refused = tmp_path / "refused.txt"
    done = ranker("learn", learner, "--follow", tmp_path / "in", "--once", "--refused", refused, "--json").json
    assert done["recorded"] == {"new": 400, "known": 0, "refused": 1}
    assert "no JSON object" in refused.read_text()
    assert done["learned"]["events"] == 400
    assert done["learned"]["promotions"] > 0
    version = done["serving"]["version"]
    assert version.startswith("v0001+v")
    found = ranker("status", learner, "--json").json
    assert found["serving"]["version"] == version
    assert version.split("+")[1] in found["learned_versions"]
    assert found["log"]["events"] == 400
    again = ranker("learn", learner, "--json").json  # only what the newest version had not seen
    assert again["learned"]["events"] < 400
    ranker("rollback", learner, "v0077").refused("'v0077'", "is kept, only v")
    back = ranker("rollback", learner, "saved", "--json").json["serving"]["version"]
    assert ranker("status", learner, "--json").json["serving"]["version"] == back


@pytest.mark.slow
def test_standard_input_is_recorded_to_its_end(learner: Path) -> None:
    command = [sys.executable, "-m", "ranker", "learn", str(learner), "--follow", "-", "--json"]
    done = subprocess.run(command, input=lines(1000, 40), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recorded"]["new"] == 40


def test_an_engine_that_cannot_learn_is_refused_in_one_line(model: Path, ranker: Run) -> None:
    ranker("learn", model).refused("needs a split cross-encoder")
    ranker("rollback", model, "saved").refused("no learned versions")


def test_a_folder_that_is_none_is_refused(learner: Path, tmp_path: Path, ranker: Run) -> None:
    ranker("learn", learner, "--follow", tmp_path / "absent").refused("absent: is no folder")
