"""The split cross-encoder: lower layers read items once, offline; joint layers read item and user at request time."""
