"""A report as its reader has it: what stands in its tables, and what it would fetch."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd


class Page(HTMLParser):
    """One HTML page, taken apart.

    Attributes:
        tags: Every start tag and its attributes, in order.
        texts: Every text between tags, stripped.
        headings: Of its sections.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self._tables: list[tuple[str, list[list[str]], list[tuple[int, int]]]] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._tables.append(("", [], []))
        elif tag == "tr":
            self._tables[-1][1].append([])
        elif tag in ("td", "th"):
            _, rows, best = self._tables[-1]
            rows[-1].append("")
            if dict(attrs).get("class") == "best":
                best.append((len(rows) - 2, len(rows[-1]) - 2))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:  # meta and the like have no end
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())
        if "h2" in self._open:
            self.headings.append(data)
        elif "caption" in self._open:
            caption, rows, best = self._tables[-1]
            self._tables[-1] = (caption + data, rows, best)
        elif {"td", "th"} & {*self._open}:
            self._tables[-1][1][-1][-1] += data

    def table(self, caption: str, nth: int = 0) -> pd.DataFrame:
        """The texts of a table, as rows by name."""
        (_, *names), *rows = [rows for found, rows, _ in self._tables if found == caption][nth]
        return pd.DataFrame([row[1:] for row in rows], [row[0] for row in rows], names)

    def best(self, caption: str, nth: int = 0) -> list[tuple[int, int]]:
        """Which cells of a table stand out: row and column."""
        return [best for found, _, best in self._tables if found == caption][nth]

    def fetched(self) -> list[str]:
        """What a browser would fetch to show it."""
        asked = [
            value
            for _, attributes in self.tags
            for name, value in attributes.items()
            if value is not None and (name in ("src", "href", "xlink:href", "srcset", "data", "action"))
        ]
        return [address for address in asked if not address.startswith("#")]
