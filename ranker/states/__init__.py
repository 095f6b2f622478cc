"""States of items on disk: what was read of each text once, kept in immutable shards and mapped into memory."""
