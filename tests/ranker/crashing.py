"""A process that serves, learns, fits again, saves and compacts until it is killed, and tells what was acknowledged."""

import os
import random
import threading

import numpy as np
import pandas as pd
import torch
from tiny_engine import N_ITEMS, START, events

import ranker
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner, resumed
from ranker.learning.refit import Refitter

EAGER = LearningConfig(
    learning_rate=1e-3, batch_lists=16, least_lists=8, most_lists=32, measured=1.0, user_share=1.0, anchor=0.0,
    refit_share=0.01,
)  # fmt: skip
TELLERS = 2
DAY = pd.Timedelta(days=1)


def work(folder, acknowledged, seed):
    """Until killed; each batch is told to the pipe once it was acknowledged, and each operation before it begins."""
    torch.set_num_threads(1)
    engine = ranker.load(folder)
    learner, refitter = Learner(engine, EAGER, seed, resumed(engine)), Refitter(engine, EAGER)
    telling = threading.Lock()

    def tell(*words):
        with telling:
            acknowledged.send(words)

    def teller(me):
        rng = np.random.default_rng([seed, me])
        batch = 0
        while True:
            batch += 1
            names = [f"{seed}-{me}-{batch}-{n}" for n in range(int(rng.integers(1, 6)))]
            rows = [(name, int(rng.integers(100, 160)), f"i{rng.integers(N_ITEMS)}", "click") for name in names]
            times = START + DAY * (100 + seed) + pd.to_timedelta(rng.integers(0, 86_000, len(rows)), unit="s")
            engine.feedback(events(*rows, datetime=times))
            tell("event", names, [time.value for time in times])

    for me in range(TELLERS):
        threading.Thread(target=teller, args=(me,), daemon=True).start()
    draw = random.Random(seed)
    tell("ready", os.getpid())
    lists = 0
    while True:
        what = draw.choices(["learn", "refit", "recommend", "save", "compact"], [12, 1, 4, 1, 1])[0]
        tell(what)
        if what == "learn":
            learner.step()
        elif what == "refit":
            refitter.step()
        elif what == "recommend":
            lists += 1
            engine.recommend([draw.randrange(100, 160)], 5, list_ids=f"{seed}-list-{lists}")
        elif what == "save":
            engine.save(folder)
        else:
            engine.log.compact(START + DAY * (98 + seed))
