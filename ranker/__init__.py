"""Candidates and feedback to an order: the engine, its training, its evaluation and its CLI.

engine = ranker.fit(interactions, items)
engine.recommend([42], k=10)
engine.feedback(events)
engine.save("model")
engine = ranker.load("model")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.errors import (
        ArtifactError,
        BatchError,
        ConfigError,
        ExportError,
        ExtraError,
        InputError,
        OverloadError,
        RankerError,
    )
    from ranker.config import EngineConfig
    from ranker.engine import Engine
    from ranker.exporting import EngineExport, export
    from ranker.fitting import fit
    from ranker.persistence import load_engine as load
    from ranker.updating import update_items
    from retrieval.catalogue import Between

__all__ = [
    "ArtifactError",
    "BatchError",
    "Between",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineExport",
    "ExportError",
    "ExtraError",
    "InputError",
    "OverloadError",
    "RankerError",
    "export",
    "fit",
    "load",
    "update_items",
]

# A name is imported when it is first asked for: torch and transformers take seconds, which neither `ranker --help` nor
# a mistyped option should.
_HOMES = {
    **dict.fromkeys(
        (
            "ArtifactError",
            "BatchError",
            "ConfigError",
            "ExportError",
            "ExtraError",
            "InputError",
            "OverloadError",
            "RankerError",
        ),
        "encoders.errors",
    ),
    **dict.fromkeys(("EngineExport", "export"), "ranker.exporting"),
    "Between": "retrieval.catalogue",
    "Engine": "ranker.engine",
    "EngineConfig": "ranker.config",
    "fit": "ranker.fitting",
    "load": "ranker.persistence",
    "update_items": "ranker.updating",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), "load_engine" if name == "load" else name)
