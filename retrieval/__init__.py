"""Users to candidates: ALS, text search, popularity, and their fusion."""
