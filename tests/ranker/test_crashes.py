"""A process that is killed at any instant loses nothing that was acknowledged, and leaves a whole engine.

``RANKER_KILLS`` says how often it is killed.
"""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from crashing import DAY, work

import ranker
from ranker.feedback import IMPRESSION, acts_of
from ranker.feedback.acts import reports_of
from ranker.learning.versions import versions_of

KILLS = int(os.environ.get("RANKER_KILLS", "20"))
MOST_OPERATIONS = 20  # before a kill
OPERATIONS = {"learn", "refit", "recommend", "save", "compact"}


def killed(folder, seed, operations, after_s):
    """Run the process, kill it so many seconds after the last of so many operations began; what it said.

    Operations are counted since a slow machine does fewer in the same time.
    """
    context = multiprocessing.get_context("forkserver")
    # torch takes seconds, and so does what an encoder that was not exported is read with
    context.set_forkserver_preload(["ranker.persistence", "ranker.learning.learner", "transformers.modeling_utils"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(folder, theirs, seed))
    process.start()
    theirs.close()
    said = []
    while operations:
        said.append(ours.recv())
        operations -= said[-1][0] in OPERATIONS
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGKILL)
    try:
        while True:
            said.append(ours.recv())
    except (EOFError, OSError):  # the pipe's end, or a message that the kill cut short
        ours.close()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return said


def kept_from(seed):
    """Of which days the log may have dropped events by now, since ``work`` keeps two."""
    return tiny_engine.START + DAY * (98 + seed)


def replayed(engine):
    """Each user's history by everything in the log, read at once."""
    log = engine.log.newer(0, -1)
    positions = engine.catalogue.ids.find([event.item_id for event in log])
    expected = {}
    for user in {event.user_id for event in log}:
        own = [at for at, event in enumerate(log) if event.user_id == user]
        reports = reports_of([log[at] for at in own], positions[own], engine.config.feedback)
        acts = acts_of(reports, engine.config.feedback.same_act_seconds)
        expected[user] = list(zip(acts.items.tolist(), acts.weights.tolist(), acts.times.tolist(), strict=True))
    return expected


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * KILLS)
def test_what_was_acknowledged_is_there_exactly_once_however_often_it_is_killed(checkpoint, tmp_path):
    folder = tmp_path / "model"
    config = tiny_engine.split_config(checkpoint)
    ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False).save(folder)
    draw = random.Random(7)
    told, under_way, versions, refitted = {}, [], set(), False
    for seed in range(KILLS):
        said = killed(folder, seed, draw.randint(1, MOST_OPERATIONS), draw.uniform(0, 0.05))
        for kind, *words in said:
            if kind == "event":
                told |= dict(zip(*words, strict=True))
        under_way.append([kind for kind, *_ in said if kind in OPERATIONS][-1])

        engine = ranker.load(folder)  # every file of the version that serves is checked
        held = engine.log.read()
        acts = held[held["kind"] != IMPRESSION]
        assert held["event_id"].is_unique
        due = {name for name, moment in told.items() if pd.Timestamp(moment) >= kept_from(seed)}
        assert due <= set(acts["event_id"])
        shown = held[held["kind"] == IMPRESSION].groupby("list_id")["value"].apply(sorted)
        assert all(places == [1, 2, 3, 4, 5] for places in shown)  # a list is logged whole or not at all
        expected = replayed(engine)
        for user, known in zip(expected, engine.users.acts(list(expected)), strict=True):
            found = zip(known.items.tolist(), known.weights.tolist(), known.times.tolist(), strict=True)
            assert list(found) == expected[user]
        current = versions_of(engine, folder).current()
        serving = engine.reranker.joint.saved if current is None else current.weights
        assert engine.views.until == (engine.saved_views.until if current is None else current.facts.until)
        for name, weight in engine.reranker.joint.weights.items():
            assert np.array_equal(weight, serving[name])
        versions.add(engine.version)
        refitted |= bool(current is not None and current.sources) or engine.saved_views.until > 0
        assert len(engine.recommend([100], 5)) == 5
        engine.log.close()
    assert len(told) > 5 * KILLS
    assert len(set(under_way)) > 1 or KILLS < 20
    assert len(versions) > min(2, KILLS // 10)
    assert refitted or KILLS < 20
    print(
        f"{KILLS} kills, {len(told)} events acknowledged, versions {len(versions)}; under way:",
        {what: under_way.count(what) for what in sorted(set(under_way))},
    )
