"""Text to numbers: transformer encoders, their ONNX exports, and nothing about users or items."""

from encoders.checkpoint import DEFAULT_CHECKPOINT
from encoders.export import ExportConfig, export_pair_cross_encoder, export_text_encoder
from encoders.pair import PairCrossEncoder, PairCrossEncoderConfig, PairScorer
from encoders.report import ExportReport, MetricChange, PrecisionReport
from encoders.served import OnnxPairCrossEncoder, OnnxTextEncoder, is_export
from encoders.session import OnnxSession, open_session
from encoders.tasks import RankingTask, RetrievalTask
from encoders.text import Encoder, StateEncoder, TextEncoder, TextEncoderConfig, TextStates

__all__ = [
    "DEFAULT_CHECKPOINT",
    "Encoder",
    "ExportConfig",
    "ExportReport",
    "MetricChange",
    "OnnxPairCrossEncoder",
    "OnnxSession",
    "OnnxTextEncoder",
    "PairCrossEncoder",
    "PairCrossEncoderConfig",
    "PairScorer",
    "PrecisionReport",
    "RankingTask",
    "RetrievalTask",
    "StateEncoder",
    "TextEncoder",
    "TextEncoderConfig",
    "TextStates",
    "export_pair_cross_encoder",
    "export_text_encoder",
    "is_export",
    "open_session",
]
