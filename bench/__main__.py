"""``python -m bench COMMAND``: the demo, and the measurements."""

import sys

import typer

from bench import demo, dial, latency, logs, pairs, quantization
from bench.feedback import command as feedback
from bench.quality import command as quality
from bench.scale import command as scale
from encoders.errors import RankerError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("demo")(demo.main)
app.command("dial")(dial.main)
app.command("feedback")(feedback.main)
app.command("latency")(latency.main)
app.command("logs")(logs.main)
app.command("pairs")(pairs.main)
app.command("quality")(quality.main)
app.command("quantization")(quantization.main)
app.command("scale")(scale.main)

if __name__ == "__main__":
    try:
        app()
    except RankerError as error:
        sys.exit(f"error: {error}")
