"""Recommenders of other libraries on the same questions: in this process, or in an environment of their own."""
