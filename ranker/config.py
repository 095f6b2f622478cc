"""Every setting of an engine in one tree, read from and written to YAML."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from encoders import DEFAULT_CHECKPOINT, ExportConfig, PairCrossEncoderConfig, TextEncoderConfig
from encoders.errors import ConfigError
from ranker.exploration import ExplorationConfig
from ranker.feedback.policy import FeedbackPolicy
from ranker.learning.config import LearningConfig
from ranker.states.rows import RowKind
from ranker.yaml_files import read_yaml
from retrieval.als import AlsConfig
from retrieval.ease import EaseConfig
from retrieval.fusion import FusionConfig
from retrieval.neighbours import NeighbourConfig
from retrieval.popularity import PopularityConfig
from retrieval.sequence import SequenceConfig
from retrieval.text import TextConfig
from retrieval.training import LoopConfig
from retrieval.transitions import TransitionConfig

SourceName = Literal["als", "ease", "neighbours", "transitions", "sequence", "text", "popularity", "trend"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig(LoopConfig):
    """How the cross-encoder is fine-tuned on labelled lists; its examples are pairs. See ``LoopConfig`` for the rest.

    Attributes:
        holdout: Newest events of each user that the candidates' sources do not see, at most half of the user's; each
            becomes a labelled list.
        newcomers: Share of the users of whom the candidates' sources see nothing at all: lists of their first events
            tell what to make of a short history.
        max_lists: Labelled lists at most; a random sample of users where there are more.
        max_feedback: Labelled feedback events at most, the newest, each a pair beside those of the lists.
        negatives: Candidates beside the chosen item in a training list, labelled 0.
        validation_fraction: Share of users whose lists are kept for early stopping and for the blend.
        validation_lists: Validation lists scored at each measurement, at most.
    """

    holdout: Annotated[int, Field(ge=1)] = 5
    newcomers: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_lists: Annotated[int, Field(ge=1)] = 10_000
    max_feedback: Annotated[int, Field(ge=0)] = 20_000
    negatives: Annotated[int, Field(ge=1)] = 4
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation_lists: Annotated[int, Field(ge=1)] = 100


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class JointTrainingConfig(TrainingConfig):
    """How the joint layers are trained on labelled lists; see ``TrainingConfig``, whose pairs are whole lists here.

    Attributes:
        loss: "softmax" puts the chosen item of a list above its negatives; "bce" tells each of them apart by itself.
        head_rate: Learning rate of what is new (head, event and factor embeddings), as a multiple of the layers'.
        queries: Share of the lists that are learned from once more as searches, the chosen item's title being the
            query; 0 never does, and requests with a query keep the fused order then.
        teacher: Hub id or folder of a pair cross-encoder to learn from, too; ``RerankConfig.pair`` says how it reads
            (``model`` and ``context_items``). None learns from what users took alone.
        distillation: Share of the teacher's term in the loss of the lists that it scored.
        teacher_lists: Lists that the teacher scores at most, once, before training.
    """

    max_lists: Annotated[int, Field(ge=1)] = 100_000
    negatives: Annotated[int, Field(ge=1)] = 31
    epochs: Annotated[float, Field(gt=0)] = 3.0
    evaluations_per_epoch: Annotated[int, Field(ge=1)] = 1
    validation_lists: Annotated[int, Field(ge=1)] = 1000
    loss: Literal["softmax", "bce"] = "softmax"
    head_rate: Annotated[float, Field(gt=0)] = 5.0
    queries: Annotated[float, Field(ge=0, lt=1)] = 0.2
    teacher: str | None = None
    distillation: Annotated[float, Field(gt=0, le=1)] = 0.5
    teacher_lists: Annotated[int, Field(ge=1)] = 5_000


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UnfreezingConfig:
    """How lower layers are tuned before they read the items.

    What is not said here is as in the joint layers' training, but there is no teacher.

    Attributes:
        layers: How many of the lower layers, the uppermost ones; 0 leaves the encoder as it is.
        lists: Lists that they are tuned on at most; every text of a list is read anew each time that it is seen.
        batch_size: Lists in a gradient step.
        learning_rate: Peak learning rate of the lower layers.
    """

    layers: Annotated[int, Field(ge=0)] = 0
    lists: Annotated[int, Field(ge=1)] = 10_000
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SplitConfig:
    """The split cross-encoder: the text encoder's lower layers read items once, its upper ones item and user together.

    Attributes:
        joint_layers: How many upper layers read item and user together; more is slower and may be better.
        depth: Candidates of each request that are scored.
        events: Newest events of a user that are read.
        quantized: Export the text encoder first, as ``EngineConfig.export`` says, and train on what the export makes
            of the items, so that what serves is what was trained on. Off, the encoder stays in torch.
        max_tokens: Tokens of an item, and of a query, that are read, the first ones.
        item_vectors: Where several layers are joint: average an item's tokens into so many vectors at most, which is
            faster and smaller. None keeps every token. A single joint layer keeps one row of an item in any case.
        states: How item states are kept: "int8" takes little more than half the room of "float16" and rounds each to a
            127th of the largest of 32. The joint layers are trained on the states as they are kept.
        training: How the joint layers are trained.
        unfreezing: Whether lower layers are tuned, too, and how. The encoder that they leave also searches; where it
            loses more of that than ``EngineConfig.export.tolerance``, it stays as it was, with a warning.
    """

    joint_layers: Annotated[int, Field(ge=1)] = 1
    depth: Annotated[int, Field(ge=1)] = 100
    events: Annotated[int, Field(ge=1)] = 20
    quantized: bool = True
    max_tokens: Annotated[int, Field(ge=1)] = 64
    item_vectors: Annotated[int | None, Field(ge=2)] = 8
    states: RowKind = "float16"
    training: JointTrainingConfig = JointTrainingConfig()
    unfreezing: UnfreezingConfig = UnfreezingConfig()


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PairConfig:
    """The pair cross-encoder: a whole transformer reads user and item as one text.

    Attributes:
        checkpoint: Hub id or folder of an encoder, or of a ready-made cross-encoder.
        model: Its settings.
        depth: Candidates of each request that it scores.
        context_items: Titles of a user's newest liked items that it reads.
        training: How it is fine-tuned.
    """

    checkpoint: str = DEFAULT_CHECKPOINT
    model: PairCrossEncoderConfig = PairCrossEncoderConfig()
    depth: Annotated[int, Field(ge=1)] = 20
    context_items: Annotated[int, Field(ge=1)] = 3
    training: TrainingConfig = TrainingConfig()


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RerankConfig:
    """The cross-encoder that re-orders the best candidates.

    Attributes:
        enabled: Off leaves the candidates in their fused order.
        kind: Which one: "split" is hundreds of times faster, "pair" takes any ready-made cross-encoder.
        split: Settings of the one.
        pair: Settings of the other.
    """

    enabled: bool = True
    kind: Literal["split", "pair"] = "split"
    split: SplitConfig = SplitConfig()
    pair: PairConfig = PairConfig()

    @property
    def chosen(self) -> SplitConfig | PairConfig:
        """The settings of the kind in use."""
        return self.split if self.kind == "split" else self.pair


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LastingConfig:
    """The view of lasting taste: what a user may want in the coming weeks, where the usual one says what comes next.

    Attributes:
        enabled: Off saves fitting the sources once more.
        share: Newest share of all events that the sources do not see while the view's weights are learned.
        least_users: Users with new items after that instant without whom the weights stay 1: fewer teach nothing.
        max_lists: Users whose lists teach the weights at most; a random sample where there are more.
        pause_seconds: Where the horizon is "auto", users whose newest event is at least so long ago are answered by
            this view: what they do first when they come back follows from their last visit no more.
    """

    enabled: bool = True
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    least_users: Annotated[int, Field(ge=1)] = 20
    max_lists: Annotated[int, Field(ge=1)] = 10_000
    pause_seconds: Annotated[float, Field(ge=0)] = 3600


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EngineConfig:
    """All settings of an engine.

    Attributes:
        seed: Seed of everything random.
        sources: The candidate sources in use.
        checkpoint: Hub id or folder of the text encoder.
        encoder: Settings of the text encoder.
        als: Settings of the ALS source.
        ease: Settings of the EASE source.
        neighbours: Settings of the neighbours source.
        transitions: Settings of the transitions source.
        sequence: Settings of the sequence source.
        text: Settings of the text source.
        popularity: Settings of the popularity source.
        trend: Settings of the trend source, which is popularity with a short half-life.
        fusion: How candidates are fused.
        lasting: The view of lasting taste.
        rerank: The cross-encoder and its training.
        export: Precisions to export to, and what each may cost.
        feedback: What each kind of feedback says.
        exploration: How much of a logged list is left to chance.
        learning: How the joint layers go on learning while they serve.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    sources: Annotated[tuple[SourceName, ...], Field(min_length=1)] = ("als", "transitions", "text", "popularity")
    checkpoint: str = DEFAULT_CHECKPOINT
    encoder: TextEncoderConfig = TextEncoderConfig()
    als: AlsConfig = AlsConfig()
    ease: EaseConfig = EaseConfig()
    neighbours: NeighbourConfig = NeighbourConfig()
    transitions: TransitionConfig = TransitionConfig()
    sequence: SequenceConfig = SequenceConfig()
    text: TextConfig = TextConfig()
    popularity: PopularityConfig = PopularityConfig()
    trend: PopularityConfig = PopularityConfig(half_life_days=7.0)
    fusion: FusionConfig = FusionConfig()
    lasting: LastingConfig = LastingConfig()
    rerank: RerankConfig = RerankConfig()
    export: ExportConfig = ExportConfig()
    feedback: FeedbackPolicy = FeedbackPolicy()
    exploration: ExplorationConfig = ExplorationConfig()
    learning: LearningConfig = LearningConfig()

    @classmethod
    def from_yaml(cls, path: Path | str) -> EngineConfig:
        """Read a YAML file; what it leaves out keeps its default.

        Raises:
            ConfigError: The file cannot be read, a key is there twice or unknown (the message names the nearest known
                one), or a value is of the wrong type or out of range.
        """
        return cls.from_dict(read_yaml(path), str(path))

    @classmethod
    def from_dict(cls, tree: dict[str, Any], origin: str = "config") -> EngineConfig:
        """Check a nested dictionary of settings; see ``from_yaml``."""
        whole = _over_defaults(tree, cls(), origin)
        try:
            return TypeAdapter(cls).validate_python(whole)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{origin}: {name} = {first['input']!r}: {first['msg']}.") from error

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, defaults included."""
        tree: dict[str, Any] = TypeAdapter(EngineConfig).dump_python(self, mode="json")
        return tree

    def to_yaml(self, path: Path | str) -> None:
        """Write every setting, defaults included."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def _over_defaults(tree: dict[str, Any], settings: Any, origin: str, prefix: str = "") -> dict[str, Any]:
    """The tree, laid over these settings at every depth: what it leaves out keeps its default where it stands."""
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    for key, value in tree.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known here are {', '.join(known)}."
            raise ConfigError(f"{origin}: unknown key {prefix + str(key)!r}; {hint}")
        if isinstance(value, dict) and is_dataclass(known[key]):
            known[key] = _over_defaults(value, known[key], origin, f"{prefix}{key}.")
        else:
            known[key] = value
    return known
