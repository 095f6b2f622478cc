"""Candidates and feedback to an order: the engine, its training, its evaluation and its CLI.

engine = ranker.fit(interactions, items)
engine.recommend([42], k=10)
engine.feedback(events)
engine.save("model")
engine = ranker.load("model")
"""

from encoders.errors import ArtifactError, ConfigError, ExportError, ExtraError, InputError, RankerError
from ranker.config import EngineConfig
from ranker.engine import Engine
from ranker.exporting import EngineExport, export
from ranker.fitting import fit
from ranker.persistence import load_engine as load
from retrieval.catalogue import Between

__all__ = [
    "ArtifactError",
    "Between",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineExport",
    "ExportError",
    "ExtraError",
    "InputError",
    "RankerError",
    "export",
    "fit",
    "load",
]
