"""The life of feedback on MovieLens: a replay through the durable log, with and without learning."""
