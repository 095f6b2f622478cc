"""A source that reads a user's events in their order: a small causal transformer over item representations."""

from retrieval.sequence.model import SequenceConfig
from retrieval.sequence.source import SequenceRetriever

__all__ = ["SequenceConfig", "SequenceRetriever"]
