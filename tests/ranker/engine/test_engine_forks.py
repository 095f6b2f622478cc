import os
import signal
import warnings

import pytest
from tiny_engine import events


def told_in_a_fork(question):
    """What a fork of this process answers, or the error that it raises instead, as text."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this process has threads is the point
        child = os.fork()
    if not child:
        signal.alarm(60)  # a question that waits for a thread that is not there waits for ever
        try:
            answer = str(question())
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the fork hung"
    return told


@pytest.mark.parametrize(
    "question",
    [
        lambda engine: engine.recommend([100]),
        lambda engine: engine.rank(100, ["i1"]),
        lambda engine: next(engine.candidates([100])),
        lambda engine: engine.feedback(events(("c-1", 100, "i1", "click"))),
        lambda engine: engine.forget([100]),
    ],
    ids=["recommend", "rank", "candidates", "feedback", "forget"],
)
def test_an_engine_is_not_asked_in_a_fork_of_its_process(engine, question):
    told = told_in_a_fork(lambda: question(engine))

    assert told.startswith(f"InputError: This engine is of process {os.getpid()}, of which this one (")
    assert "Call ranker.load in each process, and in none that forks afterwards" in told
