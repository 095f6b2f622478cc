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
import os
import platform
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from encoders.errors import ArtifactError

FORMAT = 1
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
KEPT_VERSIONS = 2  # the serving one and the one before it
LIBRARIES = ("hybrid-ranker", "torch", "transformers", "onnxruntime-gpu", "onnxruntime", "faiss-cpu", "implicit", "numpy")


def write_version(root: Path, write: Callable[[Path], None]) -> Path:
    """Write a new version into ``root`` and let it serve.

    Args:
        root: The artifact's folder, created where it is missing.
        write: Fills an empty folder.

    Returns:
        The version's folder.

    Raises:
        ArtifactError: ``root`` is something else, or the disk refused; what was there before is untouched.
    """
    if root.exists() and any(root.iterdir() if root.is_dir() else [root]) and not (root / CURRENT).exists():
        raise ArtifactError(f"{root}: exists and holds no saved engine. Choose another folder, or empty this one.")
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _write_manifest(temporary)
        _sync_tree(temporary)
        target = root / f"v{_newest(root) + 1:04d}"
        temporary.rename(target)
        _replace(root / CURRENT, target.name)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, ArtifactError):
            raise
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error.strerror
        raise ArtifactError(
            f"{root}: the engine was not saved ({reason}); what was there before is untouched. Make room or choose "
            "another folder, and save again."
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(root)
    return target


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
    folder = root / name
    if folder.parent != root or not folder.is_dir():
        raise ArtifactError(f"{root / CURRENT}: names {name!r}, which is no version in this folder. Save the engine again.")
    files = read_manifest(folder)["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
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
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version's folder.

    Raises:
        ArtifactError: It is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        number = manifest["format"]
        entries = {str(k): {"bytes": int(v["bytes"]), "sha256": str(v["sha256"])} for k, v in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a readable manifest. Restore it from a backup, or save again.") from error
    if number != FORMAT:
        raise ArtifactError(
            f"{path}: format {number}, but this library reads format {FORMAT}. "
            "Install the hybrid-ranker version that wrote it, or fit the engine again."
        )
    return {**manifest, "files": entries}


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "libraries": {name: number for name in LIBRARIES if (number := _installed(name))},
        "files": {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _newest(root: Path) -> int:
    return max((int(path.name[1:]) for path in root.glob("v[0-9]*") if path.name[1:].isdigit()), default=0)


def _prune(root: Path) -> None:
    for number in range(_newest(root) - KEPT_VERSIONS, 0, -1):
        shutil.rmtree(root / f"v{number:04d}", ignore_errors=True)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
