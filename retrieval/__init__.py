"""Users to candidates: ALS, transitions, text search, popularity, more sources to choose, and their fusion."""
