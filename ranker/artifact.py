"""A saved engine on disk: whole versions, each with a manifest of hashes, and one name that says which serves.

    model/
        CURRENT                 the name of the serving version
        feedback.sqlite         the feedback log, which outlives versions
        v0001/manifest.json     format, library versions, size and SHA-256 of every file
        v0001/…

A version is written beside the others under a temporary name, synced, and renamed; then CURRENT is replaced. A crash
at any instant leaves the old version or the new one serving, never a mixture.
"""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from encoders.errors import ArtifactError
from ranker.installed import libraries
from retrieval.storage import replace_text, sync

FORMAT = 6
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
LEFTOVER = re.compile(r"\.(CURRENT\.)?[0-9a-f]{32}\.tmp|v\d{4,}")
LEFTOVERS_KEPT_SECONDS = 24 * 60 * 60  # a younger one may be a save that is still at work
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_WORDS = re.compile(  # safetensors; numpy, which loses the number; FAISS
    r"os error (28|27|122)\b|No space left|File too large|\d+ requested and \d+ written|write error in .*: \d+ != \d+"
)
KEPT_VERSIONS = 2  # the serving one and the one before it


def write_version(root: Path, write: Callable[[Path], None], kept: int = KEPT_VERSIONS) -> Path:
    """Write a new version into ``root`` and let it serve.

    Args:
        root: The artifact's folder, created where it is missing.
        write: Fills an empty folder.
        kept: How many versions stay, the new one among them.

    Returns:
        The version's folder.

    Raises:
        ArtifactError: ``root`` is something else, or the disk refused; what was there before is untouched.
    """
    check_target(root)
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    written = [temporary]
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _write_manifest(temporary)
        _sync_tree(temporary)
        target = _named(temporary, root)
        written.append(target)
        sync(root)  # the version has its name before CURRENT says it
        replace_text(root / CURRENT, target.name)
    except BaseException as error:
        for folder in written:
            if folder.name != serving(root):  # a refusal may come after the new name was written
                shutil.rmtree(folder, ignore_errors=True)
        reason = refusal(error)
        if reason is None:
            raise
        raise ArtifactError(
            f"{root}: the engine was not saved ({reason}); what was there before is untouched. Make room or choose "
            "another folder, and save again."
        ) from error
    _prune(root, kept)
    return target


def kept_versions(root: Path) -> list[str]:
    """Names of the versions in a folder, the oldest first."""
    return sorted((path.name for path in root.glob("v[0-9]*")), key=lambda name: (len(name), name))


def serve_version(root: Path, name: str) -> None:
    """Let a kept version serve.

    Raises:
        ArtifactError: It is not there, or the disk refused.
    """
    if name not in kept_versions(root):
        raise ArtifactError(f"{root}: no version {name!r} is kept, only {', '.join(kept_versions(root)) or 'none'}.")
    try:
        replace_text(root / CURRENT, name)
    except OSError as error:
        raise ArtifactError(
            f"{root / CURRENT}: could not be written ({error.strerror}). Mend that, and retry."
        ) from error


def remove_others(root: Path) -> None:
    """Remove every version but the serving one.

    Raises:
        ArtifactError: The disk refused.
    """
    try:
        for path in root.glob("v[0-9]*"):
            if path.name != serving(root):
                shutil.rmtree(path)
    except OSError as error:
        raise ArtifactError(f"{root}: older versions could not be removed ({error.strerror}). Remove them.") from error


def check_target(root: Path) -> None:
    """Refuse a folder that holds anything but engines and what a save that was killed left behind.

    Raises:
        ArtifactError: It does, or its name is none that a folder can have.
    """
    try:
        if not root.exists() or (root / CURRENT).exists():
            return
    except OSError as error:
        raise ArtifactError(f"{root}: no folder can be called so ({error.strerror}). Choose another name.") from error
    if not root.is_dir() or any(not LEFTOVER.fullmatch(path.name) for path in root.iterdir()):
        raise ArtifactError(f"{root}: exists and holds no saved engine. Choose another folder, or empty this one.")


def serving(root: Path) -> str:
    """Name of the version that serves, by what the folder says; empty where it says nothing."""
    try:
        return (root / CURRENT).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _named(temporary: Path, root: Path) -> Path:
    """Rename a written version to the next free number, which another process may be taking too."""
    while True:
        target = root / f"v{_newest(root) + 1:04d}"
        try:
            return temporary.rename(target)
        except OSError:
            if not target.exists():
                raise


def refusal(error: BaseException) -> str | None:
    """Why the disk refused, for an error that says it did; every library says it in its own way."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL or FULL_WORDS.search(text):
        return "the disk is full"
    if isinstance(error, ArtifactError) or not isinstance(error, OSError):
        return None
    return error.strerror or text


def open_version(root: Path) -> Path:
    """The folder of the serving version, every file of it checked against the manifest.

    Raises:
        ArtifactError: There is no saved engine, its format is newer than this library's, or a file is missing,
            unexpected, or differs from what was saved.
    """
    try:
        name = (root / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{root}: no saved engine here (no readable {CURRENT}). Check the path.") from error
    if not re.fullmatch(r"v\d{4,9}", name) or not (root / name).is_dir():
        raise ArtifactError(
            f"{root / CURRENT}: names {name[:40]!r}, which is no version in this folder. Save the engine again."
        )
    return checked_version(root / name)


def checked_version(folder: Path) -> Path:
    """The folder of a version, once every file of it was checked against the manifest.

    Raises:
        ArtifactError: Its format is not this library's, or a file is missing, unexpected, or differs.
    """
    files = read_manifest(folder)["files"]
    try:
        _check_files(folder, files)
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{error.filename or folder}: cannot be read ({error.strerror}). Check who may read it, or load again."
        ) from error
    return folder


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    if found != set(files):
        odd = sorted(found ^ set(files))[0]
        problem = "is missing" if odd in files else "is not part of what was saved"
        raise ArtifactError(f"{folder / odd}: {problem}. Restore the folder from a backup, or save the engine again.")
    for path, expected in files.items():
        size = (folder / path).stat().st_size
        if size != expected["bytes"]:
            raise ArtifactError(
                f"{folder / path}: {size} bytes, but {expected['bytes']} were saved. Restore it from a backup."
            )
        if _sha256(folder / path) != expected["sha256"]:
            raise ArtifactError(f"{folder / path}: its content differs from what was saved. Restore it from a backup.")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version's folder.

    Raises:
        ArtifactError: It is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        number = manifest["format"]
        if number != FORMAT:
            raise ArtifactError(
                f"{path}: format {number}, but this library reads format {FORMAT}. "
                "Install the hybrid-ranker version that wrote it, or fit the engine again."
            )
        entries = {str(k): {"bytes": int(v["bytes"]), "sha256": str(v["sha256"])} for k, v in manifest["files"].items()}
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a readable manifest. Restore it from a backup, or save again.") from error
    return {**manifest, "files": entries}


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "libraries": libraries(),
        "files": {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _newest(root: Path) -> int:
    return max((int(path.name[1:]) for path in root.glob("v[0-9]*") if path.name[1:].isdigit()), default=0)


def _prune(root: Path, kept: int) -> None:
    """Remove versions before the last ones, but never the serving one, and what saves that were killed left."""
    old, serves = _newest(root) - kept, serving(root)
    for path in root.iterdir():
        if path.name[1:].isdigit() and path.name[0] == "v" and int(path.name[1:]) <= old and path.name != serves:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(".") and LEFTOVER.fullmatch(path.name) and _age(path) > LEFTOVERS_KEPT_SECONDS:
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its save has just ended
        return 0.0


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
