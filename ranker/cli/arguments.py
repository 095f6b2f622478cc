"""What several commands take, and how the words that a user typed become values."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    import pandas as pd

    from ranker import Engine
    from retrieval.catalogue import Catalogue
    from retrieval.ids import IdMap

FILTERS = "Which items"
READING = "Reading the files"
SPLIT = "Splitting the log"

Model: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a saved engine.", show_default=False)
]
InteractionsFile: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="INTERACTIONS", help="Who did what and when: .csv, .tsv or .parquet.", show_default=False),
]
ItemsFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="The items and their texts: .csv, .tsv or .parquet.", show_default=False)
]
ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="Settings in YAML; what it leaves out keeps its default.")
]
Seed: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Seed of everything random, over the settings' own.")]
Fast: TypeAlias = Annotated[bool, typer.Option("--fast", help="No cross-encoder: the fused order stands.")]
Columns: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OURS=THEIRS,…",
        help="Columns of the interactions that are called otherwise: user_id=visitor,item_id=sku.",
        rich_help_panel=READING,
    ),
]
ItemColumns: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OURS=THEIRS,…",
        help="The same for the items; a text may be made of several: text=title+genres.",
        rich_help_panel=READING,
    ),
]
Unit: TypeAlias = Annotated[
    Literal["s", "ms", "us", "ns"],
    typer.Option("--time-unit", help="Unit of times that are numbers (since 1970).", rich_help_panel=READING),
]
OnBadRows: TypeAlias = Annotated[
    Literal["raise", "drop"],
    typer.Option(help="Refuse a file with rows that cannot be used, or leave them out.", rich_help_panel=READING),
]
LikedFrom: TypeAlias = Annotated[
    float,
    typer.Option(
        help="Weight from which an event is a sign of liking: with ratings, 4 say. A lesser one says seen.",
        rich_help_panel=READING,
    ),
]
HowToSplit: TypeAlias = Annotated[
    Literal["leave-one-out", "global-temporal", "prequential"],
    typer.Option(
        "--split",
        help="Hold out each user's newest events, or everything after one instant; prequential: predict each of "
        "the latter from all before it, then reveal it.",
        rich_help_panel=SPLIT,
    ),
]
Holdout: TypeAlias = Annotated[
    int, typer.Option(min=1, help="leave-one-out: newest events of each user.", rich_help_panel=SPLIT)
]
TestFraction: TypeAlias = Annotated[
    float, typer.Option(help="global-temporal, prequential: share of the events.", rich_help_panel=SPLIT)
]
LeastWeight: TypeAlias = Annotated[
    float, typer.Option(help="Events of less are not to be found, though they are known.", rich_help_panel=SPLIT)
]
Cutoffs: TypeAlias = Annotated[
    str, typer.Option(metavar="K,…", help="Ranks at which metrics are taken; 10 must be among them.")
]
PerUserFile: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="Write every user's metrics to this .parquet file, which compare takes.")
]

Refuse: TypeAlias = Callable[[str, str], None]  # takes what is no event, as text, and why
RefusedFile: TypeAlias = Annotated[
    Path | None, typer.Option("--refused", help="Append what is no event to this .jsonl file, each with the reason.")
]
ReportFile: TypeAlias = Annotated[
    Path | None, typer.Option("--report", help="Write tables and plots to this .html file, which needs nothing else.")
]


@contextmanager
def loaded(model: Path) -> Iterator[Engine]:
    """A saved engine, whose feedback log is closed in the end."""
    from ranker import load

    engine = load(model)
    try:
        yield engine
    finally:
        engine.log.close()


@contextmanager
def refusals(path: Path | None) -> Iterator[Refuse]:
    """What appends to a file what is no event, and why, an object a line; None: to standard error."""
    from encoders.errors import InputError

    try:
        opened = (
            nullcontext(sys.stderr) if path is None else path.open("a", encoding="utf-8", errors="backslashreplace")
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}). Name another file.") from error
    with opened as file:

        def refuse(event: str, why: str) -> None:
            file.write(json.dumps({"refused": event.rstrip(), "why": why}, ensure_ascii=False) + "\n")
            file.flush()

        yield refuse


def column_names(mappings: Sequence[str] | None) -> dict[str, str | list[str]]:
    """Names of columns from ``ours=theirs,…``; ``theirs`` may be several, joined by plus signs."""
    from encoders.errors import InputError

    found: dict[str, str | list[str]] = {}
    for mapping in ",".join(mappings or ()).split(",") if mappings else ():
        ours, _, theirs = (part.strip() for part in mapping.partition("="))
        if not ours or not theirs:
            raise InputError(f"{mapping!r} maps no column: write our name = the file's, as in user_id=visitor.")
        if ours in found:
            raise InputError(f"{ours!r} is mapped twice: once to {found[ours]!r} and once to {theirs!r}.")
        parts = theirs.split("+")
        found[ours] = parts if len(parts) > 1 else theirs
    return found


def ranks(cutoffs: str) -> tuple[int, ...]:
    """Cut-offs from ``5,10,20``, checked before any work."""
    from encoders.errors import InputError
    from ranker.evaluation.evaluate import check_summarised

    try:
        found = tuple(int(part) for part in cutoffs.split(","))
    except ValueError as error:
        raise InputError(f"--cutoffs {cutoffs!r}: write whole numbers with commas, as in 5,10,20.") from error
    check_summarised(found)
    return found


def shares(typed: str) -> tuple[float, ...]:
    """Shares from ``0.25,1``."""
    from encoders.errors import InputError

    try:
        return tuple(float(part) for part in typed.split(","))
    except ValueError as error:
        raise InputError(f"--rungs {typed!r}: write numbers with commas, as in 0.25,1.") from error


def listed_ids(ids: IdMap, typed: Sequence[str]) -> list[object]:
    """Ids from words each of which is an id or, where there is no such id, several with commas between."""
    from retrieval.ids import UNKNOWN

    found: list[object] = []
    for word in typed:
        (whole,) = ids.parse([word])
        of_this_kind = isinstance(whole, str) != ids.are_integers
        if "," not in word or (of_this_kind and ids.positions([whole])[0] != UNKNOWN):
            found.append(whole)
        else:
            found += ids.parse(part.strip() for part in word.split(","))
    return found


def attribute_filters(catalogue: Catalogue, conditions: Sequence[str]) -> dict[str, Any]:
    """Filters from ``column=value``, ``column=low..high`` (either may be left out) and ``column=a,b``."""
    from encoders.errors import InputError

    found: dict[str, Any] = {}
    for condition in conditions:
        name, equals, wanted = condition.partition("=")
        if not name or not equals:
            raise InputError(f"--where {condition!r}: write column=value, column=low..high or column=a,b.")
        if name in found:
            raise InputError(f"--where gives {name!r} twice; for several values write {name}=a,b.")
        # the catalogue refuses a column that it does not have, and names the nearest
        found[name] = _wanted(name, catalogue.frame[name], wanted) if name in catalogue.frame else wanted
    return found


def _wanted(name: str, column: pd.Series, text: str) -> Any:
    from ranker import Between

    values = column.explode()  # of lists, if it holds any
    parse = _parser(name, values)
    if parse is str and values.eq(text).any():
        return text
    low, dots, high = text.partition("..")
    if dots:
        return Between(parse(low) if low else None, parse(high) if high else None)
    return [parse(part.strip()) for part in text.split(",")] if "," in text else parse(text)


def _parser(name: str, values: pd.Series) -> Callable[[str], Any]:
    import pandas as pd

    from encoders.errors import InputError

    values = values.infer_objects()
    if pd.api.types.is_bool_dtype(values):
        read: Callable[[str], Any] = {"true": True, "false": False}.__getitem__
        kind = "true or false"
    elif pd.api.types.is_numeric_dtype(values):
        read, kind = float, "numbers"
    elif pd.api.types.is_datetime64_any_dtype(values):
        read, kind = pd.Timestamp, "times"
    else:
        return str

    def parse(text: str) -> Any:
        try:
            return read(text)
        except (KeyError, ValueError) as error:
            raise InputError(f"--where: {name} holds {kind}, and {text!r} is none.") from error

    return parse
