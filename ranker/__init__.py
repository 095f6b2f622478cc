"""Candidates and feedback to an order: the engine, its training, its evaluation and its CLI."""
