"""Ranking quality on MovieLens: the engine and its parts beside other libraries, on the same questions."""
