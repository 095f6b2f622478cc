"""The benchmarks as commands, one per module."""

import typer

from bench import quantization

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def commands() -> None:
    """Measure the library."""


app.command("quantization")(quantization.main)

if __name__ == "__main__":
    app()
