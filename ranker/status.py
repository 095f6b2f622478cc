"""What an engine says of itself while it serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ranker.learning.versions import learned_versions

if TYPE_CHECKING:
    from ranker.engine import Engine


def status_of(engine: Engine) -> dict[str, Any]:
    """See ``Engine.status``."""
    logged = engine.users.logged
    return {
        "version": engine.version,
        "learned_versions": {name: asdict(facts) for name, facts in learned_versions(engine).items()},
        "log": {"events": len(engine.log), "last_offset": engine.log.last_offset()},
        "users": {
            "of_the_fit": len(engine.users.base.users),
            "in_memory": 0 if logged is None else len(logged),
            "in_memory_at_most": 0 if logged is None else logged.most_users,
        },
        "observed": engine.observations.snapshot(),
    }
