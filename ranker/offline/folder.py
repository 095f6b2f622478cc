"""A folder of candidates: what is to be generated, the shards that are there, and in the end what they hold.

    candidates/
        _plan.json             what is generated, from which model, for whom
        part-00000.parquet     the candidates of the first users, whole or not there
        …
        _manifest.json         rows, sizes and SHA-256 of all of them, once all are there

Names that begin with an underscore are passed over by what reads folders of Parquet (Arrow, Spark, pandas).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import ConfigDict, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from encoders.errors import ArtifactError, InputError
from ranker.arguments import View
from retrieval.storage import load_settings, replace_settings

PLAN, MANIFEST, LOCK = "_plan.json", "_manifest.json", "_lock"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Plan:
    """What is generated; a run that was interrupted goes on only with the same.

    Attributes:
        version: The model's.
        fingerprint: SHA-256 of what its manifests say.
        log_offset: Newest event of the feedback log that is known to every shard, however long generation takes.
        erasures: How often events had been deleted from the log.
        users: How many.
        users_sha256: Of their ids, in order.
        k: Candidates for each, at most.
        rerank: Whether the re-ranker orders them.
        users_per_shard: In each file but the last.
        libraries: Versions of what makes numbers and bytes.
        horizon: What they are of.
    """

    version: str
    fingerprint: str
    log_offset: NonNegativeInt
    erasures: NonNegativeInt
    users: PositiveInt
    users_sha256: str
    k: PositiveInt
    rerank: bool
    users_per_shard: PositiveInt
    libraries: dict[str, str]
    horizon: View = "next"

    @property
    def shards(self) -> int:
        """How many files."""
        return -(-self.users // self.users_per_shard)

    def shard(self, number: int) -> slice:
        """Which users' candidates a file holds."""
        return slice(number * self.users_per_shard, min((number + 1) * self.users_per_shard, self.users))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Shard:
    """A file of candidates."""

    name: str
    users: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a complete folder holds."""

    plan: Plan
    rows: int
    shards: tuple[Shard, ...]


def shard_name(number: int) -> str:
    """Of the file with this number, from 0."""
    return f"part-{number:05d}.parquet"


def ids_sha256(user_ids: Sequence[object]) -> str:
    """Of ids in their order."""
    digest = hashlib.sha256()
    for user_id in user_ids:
        digest.update(repr(str(user_id)).encode())
    return digest.hexdigest()


def plan_of(out: Path) -> Plan | None:
    """The plan that a folder has.

    Raises:
        ArtifactError: It cannot be read.
    """
    return load_settings(Plan, out / PLAN) if (out / PLAN).exists() else None


def agreed_plan(out: Path, plan: Plan) -> Plan:
    """The plan that a folder has, or gets; events that were logged since it was made are for another run.

    Raises:
        InputError: The folder holds something else, or another plan's candidates.
        ArtifactError: Its plan cannot be read, or the disk refused.
    """
    before = plan_of(out)
    if before is None:
        others = sorted(each.name for each in out.iterdir() if each.name != LOCK)
        if others:
            raise InputError(f"{out}: holds {others[0]!r} and no plan of candidates. Choose another folder.")
        replace_settings(plan, out / PLAN)
        return plan
    after = replace(plan, log_offset=before.log_offset)
    changed = [name for name, value in asdict(before).items() if asdict(after)[name] != value]
    if changed or plan.log_offset < before.log_offset:
        changed = changed or ["log_offset"]
        told = "; ".join(f"{name} was {asdict(before)[name]!r} and is {asdict(plan)[name]!r}" for name in changed)
        raise InputError(f"{out}: holds candidates of another run ({told}). Empty the folder, or choose another one.")
    return before


def read_manifest(out: Path) -> Manifest:
    """What a folder of candidates holds, every file of it checked.

    Raises:
        ArtifactError: It is not complete, or a file is missing or differs from what was written.
    """
    if not (out / MANIFEST).exists():
        raise ArtifactError(f"{out}: holds no complete candidates (no {MANIFEST}). Generate them again: it goes on.")
    manifest = load_settings(Manifest, out / MANIFEST)
    for shard in manifest.shards:
        path = out / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes or sha256_of(path) != shard.sha256:
            raise ArtifactError(f"{path}: is missing, or differs from what was written. Remove it and generate again.")
    return manifest


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
