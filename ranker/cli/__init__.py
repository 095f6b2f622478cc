"""The command line ``ranker``: results on stdout, everything else on stderr, and exit codes that scripts can rely on.

0 done; 2 the user's mistake, told in one line; 1 an unexpected error; 130 interrupted.
"""

import sys
import traceback
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from typer import TyperException
from typer.main import get_command

from ranker.cli.app import PROGRAM, app, with_global_options_first

__all__ = ["main"]

DONE, UNEXPECTED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words, without the program's name; None takes the process's own.

    Returns:
        The exit code, see the module's docstring. No error escapes.
    """
    words = with_global_options_first(sys.argv[1:] if argv is None else argv)
    try:
        code = get_command(app).main(words or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        return _told(error)
    if code == INTERRUPTED:
        _print_error("interrupted.")
    return int(code or DONE)


def _told(error: Exception) -> int:
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        help_line = f" See {context.command_path} --help." if context is not None else ""
        message = error.format_message()
        _print_error(f"{message if message.endswith(('.', '?')) else f'{message}.'}{help_line}")
        return MISTAKE
    from encoders.errors import RankerError  # takes seconds where nothing has imported it yet

    if isinstance(error, RankerError):
        _print_error(str(error))
        return MISTAKE
    _print_error(f"{type(error).__name__}: {error}. This was not foreseen; run again with --debug for the traceback.")
    return UNEXPECTED


def _print_error(message: str) -> None:
    line = Text.assemble(("error: ", "bold red"), " ".join(message.split()))
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)
