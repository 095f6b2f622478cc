"""Candidates of every user, on disk, for somebody else's serving."""

from ranker.offline.folder import Manifest, read_manifest
from ranker.offline.generation import generate

__all__ = ["Manifest", "generate", "read_manifest"]
