"""Token batches: texts and pairs tokenized, sorted by length, padded per batch, and put back in order.

The torch and the ONNX models read their inputs from here, so that both see the same tokens.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tqdm import tqdm

from encoders.errors import InputError

Answer = TypeVar("Answer")

# texts are sorted within windows of this many batches: enough to pad little, and bounded for any catalogue
WINDOW_BATCHES = 256
# tokens of a batch on CPU: of more, what a layer makes does not stay in a core's cache (`bench scale --part encoding`)
CPU_TOKENS = 384


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Tokens of a batch, padded on the right to its longest row."""

    rows: NDArray[np.int64]  # (B,) places of the rows in the input
    input_ids: NDArray[np.int64]  # (B, L)
    attention_mask: NDArray[np.int64]  # (B, L) 1 for a token, 0 for padding
    token_type_ids: NDArray[np.int64]  # (B, L) 1 for a pair's second text

    def named(self, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """The arrays that a model asks for, by their Hugging Face names."""
        return {name: getattr(self, name) for name in names}


class TextTokenizer:
    """A fast tokenizer with a cut-off length, for single texts and for pairs.

    A text without tokens (an empty string, under a tokenizer that adds no special tokens) becomes one
    padding token, so that every row has something to attend to.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, pad_id: int, batch_size: int):
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self.batch_size = batch_size
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())  # its truncation is set here, not for its owner
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._window = batch_size * WINDOW_BATCHES
        self._pair_specials = self._tokenizer.num_special_tokens_to_add(True)

    def save(self, path: str) -> None:
        """Write tokenizer.json, which holds neither padding nor truncation."""
        Path(path).write_text(self.to_str(), encoding="utf-8")

    def to_str(self) -> str:
        """The content of the file that `save` writes."""
        plain = Tokenizer.from_str(self._tokenizer.to_str())
        plain.no_truncation()
        return plain.to_str()

    def text_batches(self, texts: Sequence[str], *, on_cpu: bool = False) -> Iterator[TokenBatch]:
        """Batches of single texts; what is over max_tokens is cut from the end.

        Args:
            texts: any number.
            on_cpu: whether a CPU reads them, to which smaller batches of long texts come easier.

        Raises:
            InputError: an entry is not a string, or this is a string and no list of them.
        """
        if isinstance(texts, str):
            raise InputError(f"Pass a list of texts, also for a single one, instead of {texts!r}.")
        self._tokenizer.enable_truncation(self.max_tokens)
        for start in range(0, len(texts), self._window):
            window = [_clean(text, start + at) for at, text in enumerate(texts[start : start + self._window])]
            yield from self._sorted(start, self._tokenizer.encode_batch(window), on_cpu)

    def pair_batches(self, pairs: Sequence[tuple[str, str]], *, on_cpu: bool = False) -> Iterator[TokenBatch]:
        """Batches of pairs; what is over max_tokens is cut from the end of the first text.

        The first text keeps a quarter of the room at least; only a second text longer than the other three
        quarters is cut too.

        Args:
            pairs: any number.
            on_cpu: as for `text_batches`.

        Raises:
            InputError: an entry is not a pair of strings.
        """
        for start in range(0, len(pairs), self._window):
            yield from self._sorted(start, self._encoded_pairs(pairs[start : start + self._window], start), on_cpu)

    def pair_batch(self, pairs: Sequence[tuple[str, str]]) -> TokenBatch:
        """All pairs as one batch in the order given, cut as `pair_batches` cuts them.

        Raises:
            InputError: an entry is not a pair of strings.
        """
        return self._padded(np.arange(len(pairs)), self._encoded_pairs(pairs, 0))

    def _encoded_pairs(self, pairs: Sequence[tuple[str, str]], start: int) -> list[Encoding]:
        firsts, seconds = [], []
        for place, pair in enumerate(pairs, start):
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise InputError(f"Pair {place} is {pair!r}: pass (first text, second text) tuples.")
            firsts.append(_clean(pair[0], place))
            seconds.append(_clean(pair[1], place))
        self._tokenizer.no_truncation()
        encoded = zip(
            self._tokenizer.encode_batch(firsts, add_special_tokens=False),
            self._tokenizer.encode_batch(seconds, add_special_tokens=False),
            strict=True,
        )
        return [self._join(first, second) for first, second in encoded]

    def _join(self, first: Encoding, second: Encoding) -> Encoding:
        room = self.max_tokens - self._pair_specials
        second.truncate(min(len(second), room - min(len(first), room // 4)))
        first.truncate(min(len(first), room - len(second)))
        return self._tokenizer.post_process(first, second)

    def _sorted(self, start: int, encodings: list[Encoding], on_cpu: bool) -> Iterator[TokenBatch]:
        lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")  # longest first: what does not fit in memory shows at once
        at = 0
        while at < len(order):
            longest = max(1, int(lengths[order[at]]))
            size = min(self.batch_size, max(1, CPU_TOKENS // longest)) if on_cpu else self.batch_size
            rows = order[at : at + size]
            yield self._padded(start + rows, [encodings[row] for row in rows])
            at += size

    def _padded(self, rows: NDArray[np.int64], encodings: list[Encoding]) -> TokenBatch:
        width = max(1, max((len(encoding) for encoding in encodings), default=1))
        input_ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(rows), width), dtype=np.int64)
        token_type_ids = np.zeros((len(rows), width), dtype=np.int64)
        for line, encoding in enumerate(encodings):
            length = len(encoding)
            input_ids[line, :length] = encoding.ids
            token_type_ids[line, :length] = encoding.type_ids
            attention_mask[line, : max(1, length)] = 1
        return TokenBatch(rows, input_ids, attention_mask, token_type_ids)


def answered(
    batches: Iterable[TokenBatch], run: Callable[[TokenBatch], Answer], workers: int = 1
) -> Iterator[tuple[TokenBatch, Answer]]:
    """Each batch with what `run` gives for it, in order; so many are run at a time, a thread each."""
    if workers == 1:
        yield from ((batch, run(batch)) for batch in batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[tuple[TokenBatch, Future[Answer]]] = deque()
        for batch in batches:
            under_way.append((batch, pool.submit(run, batch)))
            if len(under_way) > workers:  # one waits, so that no thread does
                done, answer = under_way.popleft()
                yield done, answer.result()
        yield from ((done, answer.result()) for done, answer in under_way)


def fill_rows(
    answers: Iterable[tuple[TokenBatch, NDArray[np.float32]]], shape: tuple[int, ...], unit: str, progress: bool
) -> NDArray[np.float32]:
    """Write each answer to its row of the input.

    Args:
        answers: batches from a `TextTokenizer`, each with its (B, …) answers.
        shape: of the whole answer; its first entry is the number of rows.
        unit: what the progress bar counts.
        progress: show a bar if the output is a terminal.
    """
    filled = np.empty(shape, dtype=np.float32)
    with tqdm(total=shape[0], unit=unit, disable=None if progress else True) as bar:
        for batch, answer in answers:
            filled[batch.rows] = answer
            bar.update(len(batch.rows))
    return filled


def _clean(text: str, place: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"Text {place} is {text!r}, not a string: fill or drop missing texts first.")
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates have no UTF-8 form; they become "?"
