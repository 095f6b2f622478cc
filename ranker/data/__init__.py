"""Interactions and items in: read from files or DataFrames, checked, in one fixed form."""

from ranker.data.movielens import MovieLens, load_movielens
from ranker.data.reading import read_interactions, read_items
from ranker.data.validation import Finding, ValidationReport, check_items_known

__all__ = [
    "Finding",
    "MovieLens",
    "ValidationReport",
    "check_items_known",
    "load_movielens",
    "read_interactions",
    "read_items",
]
