"""The program as a whole: its help, its global options, its streams and its exit codes."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_site import Fitted, Run

from ranker.cli import main
from ranker.cli.app import app, with_global_options_first

COMMANDS = [command.name for command in app.registered_commands]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ranker", *map(str, words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_help_takes_little_more_than_the_libraries_that_write_it() -> None:
    def seconds(*words: str) -> float:  # of computing: the machine may be busy with something else
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], env=ENVIRONMENT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    times = [seconds("-m", "ranker", "--help") / seconds("-c", "import typer.rich_utils") for _ in range(5)]
    assert min(times) < 2


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["recommend"], ["fit", "--no-such-option"]])
def test_nothing_heavy_is_imported_for_help_or_a_mistyped_command(words: list[str]) -> None:
    check = (
        f"import sys; from ranker.cli import main; main({words!r}); "
        "sys.exit(not {'torch', 'transformers', 'pandas', 'numpy', 'onnxruntime'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], env=ENVIRONMENT, capture_output=True).returncode == 0


def test_a_process_ends_with_the_exit_code() -> None:
    done = process("fitt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: No such command 'fitt'. Did you mean 'fit'? See ranker --help.\n"


@pytest.mark.slow
def test_json_is_all_that_a_process_prints_to_stdout(fitted: Fitted) -> None:
    done = process("recommend", fitted.folder, "1", "2", "-k", "3", "--json", "--verbose")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["recommendations"]) == 6
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_with_130(model: Path, tmp_path: Path, ranker: Run) -> None:
    pipe = tmp_path / "events.jsonl"
    os.mkfifo(pipe)

    main, over = threading.main_thread().ident, threading.Event()

    def interrupt() -> None:
        with pipe.open("wb"):  # opens once the command waits for events, and keeps it waiting
            while not over.wait(0.05):
                signal.pthread_kill(main, signal.SIGINT)
                over.wait(5)

    thread = threading.Thread(target=interrupt, daemon=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    thread.start()
    try:
        done = ranker("feedback", model, pipe)
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert (done.code, done.err) == (130, "error: interrupted.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_in_one_line_what_it_does_and_gives_an_example(command: str, ranker: Run) -> None:
    shown = ranker(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert re.search(rf"Examples?:\s+ranker {command} ", shown.out)
    summary = next(c.callback.__doc__ for c in app.registered_commands if c.name == command).splitlines()[0]
    assert summary.endswith(".")
    assert summary[:30] in ranker("--help").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fitt"], "Did you mean 'fit'?"),
        (["recommend"], "MODEL"),
        (["info", "model", "--jsn"], "--jsn"),
        (["fit", "a.csv", "b.csv"], "--out"),
        (["data", "ml-10m"], "ml-100k"),
        (["recommend", "model", "1", "-k", "many"], "'-k'"),
    ],
)
def test_a_mistyped_command_is_refused_in_one_line(words: list[str], told: str, ranker: Run) -> None:
    ranker(*words).refused(told, "--help")


def test_no_words_at_all_show_the_help(ranker: Run) -> None:
    assert ranker() == ranker("--help")


def test_the_version_is_printed(ranker: Run) -> None:
    shown = ranker("--version")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("hybrid-ranker ")


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        (["info", "m", "--json"], ["--json", "info", "m"]),
        (["-q", "rank", "m", "1", "--debug", "2"], ["-q", "--debug", "rank", "m", "1", "2"]),
        (["rank", "m", "--", "--json"], ["rank", "m", "--", "--json"]),
        (["recommend", "m", "--query=--json"], ["recommend", "m", "--query=--json"]),
    ],
)
def test_global_options_may_stand_anywhere_before_two_dashes(words: list[str], ordered: list[str]) -> None:
    assert with_global_options_first(words) == ordered


def test_an_unexpected_error_names_its_kind_in_one_line_and_shows_more_with_debug(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    for words, lines in ((["info", str(model)], 1), (["info", str(model), "--debug"], 5)):
        assert main(words) == 1
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 if lines == 1 else len(told) > lines
        assert told[-1].startswith("error: ValueError: I/O operation on closed file")
        assert "--debug" in told[-1]
        assert (told[0] == "Traceback (most recent call last):") == (lines > 1)


def test_a_mistake_shows_its_traceback_with_debug(tmp_path: Path, ranker: Run) -> None:
    told = ranker("info", tmp_path, "--debug")
    assert told.code == 2
    assert told.err.startswith("Traceback")
    assert told.err.splitlines()[-1].startswith("error: ")


def test_quiet_shows_no_notes_and_verbose_shows_them_all(fitted: Fitted, model: Path, ranker: Run) -> None:
    assert "Encoding 30 item texts." in fitted.result.err
    assert ranker("info", model, "--quiet").err == ""
    assert ranker("info", model).err == ""
