"""Served models: exported ONNX folders that encode texts and score pairs without torch.

model.onnx       the graph, pooling or head included
tokenizer.json   the fast tokenizer
export.json      what the folder is, how it was judged, and the sha256 of the two files above
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from tokenizers import Tokenizer

from encoders.batching import TextTokenizer, TokenBatch, answered, fill_rows
from encoders.binding import Buckets
from encoders.checkpoint import file_sha256
from encoders.choosing import Agreement, Choice, choose, same_order, within
from encoders.errors import ArtifactError, ConfigError
from encoders.execution import EXECUTIONS, Execution, Workload, open_execution
from encoders.report import ExportReport
from encoders.session import CPU, OnnxSession, open_session
from encoders.text import TextStates

MODEL, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "export.json"
SIZES = (1, 8, 16, 32, 64, 128, 256)  # of texts and of tokens that batches are padded to where shapes are fixed
CLOSE = 0.01  # share of its largest value by which an output may differ between executions
LEAST_TAU = 0.98  # of the order that another execution gives pairs, against the CPU's
VECTOR, STATES, LOGIT = "vector", "states", "logit"  # outputs of graphs

Kind: TypeAlias = Literal["text_encoder", "pair_cross_encoder"]
OUTPUTS: Mapping[Kind, tuple[str, ...]] = {"text_encoder": (VECTOR,), "pair_cross_encoder": (LOGIT,)}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExportManifest:
    """The export.json of a served model."""

    kind: Kind
    dim: PositiveInt
    max_tokens: PositiveInt
    batch_size: PositiveInt
    pad_id: NonNegativeInt
    report: ExportReport
    sha256: dict[str, str]
    lower_layers: NonNegativeInt | None = None
    format: Literal[1] = 1

    @property
    def precision(self) -> str:
        """The precision of the graph in the folder."""
        return self.report.chosen


def write_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Write export.json and flush it to disk."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(TypeAdapter(ExportManifest).dump_json(manifest, indent=2))
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path, kind: str) -> ExportManifest:
    """Read and check export.json and the files that it names.

    Raises:
        ArtifactError: a file is missing, damaged, or belongs to another kind of model.
    """
    path = folder / MANIFEST
    try:
        manifest = TypeAdapter(ExportManifest).validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): pass the folder of an export.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ArtifactError(f"{path} is not a valid export: {where}: {first['msg']}. Export again.") from error
    if manifest.kind != kind:
        raise ArtifactError(f"{path} describes a {manifest.kind}, not a {kind}: load it with the other class.")
    for name in (MODEL, TOKENIZER):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing: copy the whole folder, or export again.")
        if file_sha256(folder / name) != manifest.sha256.get(name):
            raise ArtifactError(
                f"{folder / name} is not the file that was exported (its sha256 differs): it is damaged, or "
                "comes from another export. Copy the folder again, or export again."
            )
    return manifest


class _Served:
    """What both served models are: a session, its tokens, and how it was judged."""

    kind: ClassVar[Kind]

    def __init__(self, session: OnnxSession, tokens: TextTokenizer, manifest: ExportManifest):
        self.session = session
        self.tokens = tokens
        self.manifest = manifest
        self._on_one_core: OnnxSession | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        providers: Literal["auto"] | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> Self:
        """Load an export after checking its files against their hashes.

        Raises:
            ArtifactError: a file is missing, damaged or foreign.
            ConfigError: a named execution provider is not available.
        """
        return cls(*_load(Path(folder), cls.kind, providers, threads))

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph."""
        return self.session.provider

    def save(self, folder: str | Path) -> None:
        """Copy the export into this empty folder, made where it is missing; `load` reads it back."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in (MODEL, TOKENIZER, MANIFEST):
            source = self.session.path.parent / name
            try:
                shutil.copyfile(source, Path(folder) / name)
            except FileNotFoundError as error:
                raise ArtifactError(f"{source} is gone since it was loaded: load its engine again.") from error

    def _choose(self, batches: Iterable[TokenBatch], agree: Agreement, executions: Sequence[Execution]) -> Choice:
        path = self.session.path
        model = onnx.load(str(path))
        limits = {"batch": self.manifest.batch_size, "tokens": self.manifest.max_tokens}
        sizes = {axis: tuple(sorted({min(size, most) for size in SIZES} | {most})) for axis, most in limits.items()}
        workload = Workload(
            [batch.named(self.session.inputs) for batch in batches],
            Buckets(sizes, {"input_ids": self.manifest.pad_id}),
        )
        choice = choose(model, workload, agree, executions)
        if choice.measured:
            chosen = next(execution for execution in executions if execution.name == choice.execution)
            self.session = open_execution(model, chosen, workload, path)
        return choice

    def _answers(self, batches: Iterator[TokenBatch]) -> Iterator[tuple[TokenBatch, NDArray[np.float32]]]:
        """Each batch with what the model is for."""
        return ((batch, found[0]) for batch, found in self._every_answer(batches, OUTPUTS[self.kind]))

    def _every_answer(
        self, batches: Iterator[TokenBatch], outputs: Sequence[str] | None = None
    ) -> Iterator[tuple[TokenBatch, list[NDArray[np.float32]]]]:
        """Each batch with these outputs of the graph, in order.

        On CPU a batch on each core is quicker than one after another on all of them.
        """
        first = list(islice(batches, 2))
        session, workers = self.session, 1
        if len(first) == 2 and session.provider == CPU and session.threads > 1 and (single := self._single()):
            session, workers = single, session.threads
        return answered(chain(first, batches), lambda batch: session.run(batch.named(session.inputs), outputs), workers)

    def _single(self) -> OnnxSession | None:
        """The same graph on one core; None where its file is gone, or another's, since it was loaded."""
        if self._on_one_core is None and self.session.path.is_file():
            content = self.session.path.read_bytes()
            if hashlib.sha256(content).hexdigest() == self.manifest.sha256[MODEL]:
                self._on_one_core = open_session(content, [CPU], threads=1)
        return self._on_one_core


class OnnxTextEncoder(_Served):
    """A text encoder in ONNX Runtime, as `export_text_encoder` writes it; build it with `load`.

    A batch equals its texts one by one to 1e-5 per entry in fp32. So it does in int8, unless float32 sums
    in another order put a value on the other side of an edge between two steps.
    """

    kind = "text_encoder"

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self.manifest.dim

    @property
    def fingerprint(self) -> str:
        """A hash of its graph, tokenizer and limit of tokens."""
        files = " ".join(self.manifest.sha256[name] for name in (MODEL, TOKENIZER))
        return hashlib.sha256(f"{files} {self.manifest.max_tokens}".encode()).hexdigest()

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Encode texts to (T, dim) rows of length 1, in the order of the input.

        Raises:
            InputError: an entry is not a string.
        """
        return fill_rows(self._answers(self._batches(texts)), (len(texts), self.dim), "text", progress)

    def choose(self, texts: Sequence[str], executions: Sequence[Execution] = EXECUTIONS) -> Choice:
        """Run from now on in the fastest execution that gives the CPU's vectors and states, as measured on these texts.

        Where this machine can run only one of them, nothing is measured and nothing changes.

        Raises:
            ConfigError: this machine can run none of them, or none agrees with the CPU.
            InputError: an entry is not a string.
        """
        return self._choose(self.tokens.text_batches(texts), within(CLOSE), executions)

    def read(self, texts: Sequence[str], lower_layers: int) -> Iterator[TextStates]:
        """Read texts in batches, keeping the token states after so many layers; see `StateEncoder.read`.

        Raises:
            ConfigError: it was exported without these states.
            InputError: an entry is not a string.
        """
        if lower_layers != self.manifest.lower_layers:
            held = self.manifest.lower_layers
            raise ConfigError(
                f"This export gives {'no token states' if held is None else f'the states after {held} layers'}, not "
                f"those after {lower_layers}: export the encoder again with lower_layers={lower_layers}."
            )
        for batch, (vectors, states) in self._every_answer(self._batches(texts)):
            yield TextStates(batch.rows, vectors, states, batch.attention_mask.sum(1))

    def _batches(self, texts: Sequence[str]) -> Iterator[TokenBatch]:
        return self.tokens.text_batches(texts, on_cpu=self.provider == CPU)


class OnnxPairCrossEncoder(_Served):
    """A pair cross-encoder in ONNX Runtime, as `export_pair_cross_encoder` writes it; use `load`."""

    kind = "pair_cross_encoder"

    def score(self, pairs: Sequence[tuple[str, str]], *, progress: bool = False) -> NDArray[np.float32]:
        """Score pairs to (P,) logits, higher is better, in the order of the input.

        Raises:
            InputError: an entry is not a pair of strings.
        """
        answers = self._answers(self.tokens.pair_batches(pairs, on_cpu=self.provider == CPU))
        return fill_rows(answers, (len(pairs),), "pair", progress)

    def choose(self, pairs: Sequence[tuple[str, str]], executions: Sequence[Execution] = EXECUTIONS) -> Choice:
        """Run from now on in the fastest execution that orders pairs as the CPU does, as measured on these pairs.

        Where this machine can run only one of them, nothing is measured and nothing changes.

        Raises:
            ConfigError: this machine can run none of them, or none agrees with the CPU.
            InputError: an entry is not a pair of strings.
        """
        return self._choose(self.tokens.pair_batches(pairs), same_order(LEAST_TAU), executions)


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export, rather than a Hugging Face checkpoint."""
    return (folder / MANIFEST).is_file()


def _load(
    folder: Path, kind: Kind, providers: Literal["auto"] | Sequence[str], threads: int | None
) -> tuple[OnnxSession, TextTokenizer, ExportManifest]:
    manifest = read_manifest(folder, kind)
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"{folder / TOKENIZER} is not a tokenizer: {error}") from error
    session = open_session(folder / MODEL, providers, threads)
    unknown = set(session.inputs) - {"input_ids", "attention_mask", "token_type_ids"}
    outputs = OUTPUTS[kind] if manifest.lower_layers is None else (VECTOR, STATES)
    if unknown or session.outputs != outputs:
        raise ArtifactError(
            f"{folder / MODEL} has inputs {session.inputs} and outputs {session.outputs}: this is another model."
        )
    tokens = TextTokenizer(tokenizer, manifest.max_tokens, manifest.pad_id, manifest.batch_size)
    return session, tokens, manifest
