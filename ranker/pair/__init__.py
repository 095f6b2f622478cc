"""The pair cross-encoder: a whole transformer reads a user's recent titles and an item's text as one input."""
