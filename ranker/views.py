"""What proposes candidates: the same sources in two views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranker.arguments import View
from ranker.lasting import lasting_views
from retrieval.candidates import Source
from retrieval.fusion import FusedRetriever


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Sources that were fitted on the same events.

    Attributes:
        next: What users may take next.
        lasting: What they may come back for; None where the engine has no such view.
        until: Offset of the newest event of the log that the sources were fitted on, beyond the log of the fit.
    """

    next: FusedRetriever
    lasting: FusedRetriever | None
    until: int

    def of(self, horizon: View) -> FusedRetriever:
        """The view of a horizon that this engine has."""
        return self.next if self.lasting is None or horizon == "next" else self.lasting

    def over(self, sources: Mapping[str, Source], until: int) -> Views:
        """The same views of other sources of the same names; a name that is left out keeps its source."""
        sources = {name: sources.get(name, own) for name, own in self.next.sources.items()}
        lasting = None if self.lasting is None else self.lasting.over(lasting_views(sources))
        return Views(self.next.over(sources), lasting, until)

    def refitted(self, saved: Views) -> dict[str, Source]:
        """The sources that are not those of the saved engine."""
        return {name: own for name, own in self.next.sources.items() if own is not saved.next.sources[name]}
