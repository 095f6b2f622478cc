"""Recommenders of other libraries, on the same split, in an environment of their own (``make peers``)."""
