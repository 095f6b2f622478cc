"""``python -m bench COMMAND``: the measurements, and the demo."""

import importlib
import pkgutil

import typer

import bench

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=bench.__doc__)
for module in pkgutil.iter_modules(bench.__path__):
    if module.name != "__main__":
        command = importlib.import_module(f"bench.{module.name}").main
        app.command(module.name, help=(command.__doc__ or "").split("\n\n")[0])(command)

if __name__ == "__main__":
    app()
