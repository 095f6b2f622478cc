"""Cross-encoders that read user and item as one text, all from the same weights: sentence-transformers' and ours."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime import quantization as ort_quantization
from onnxruntime.quantization.registry import IntegerOpsRegistry
from sentence_transformers import CrossEncoder
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from encoders import (
    ExportConfig,
    OnnxPairCrossEncoder,
    OnnxSession,
    PairCrossEncoder,
    PairCrossEncoderConfig,
    RankingTask,
    export_pair_cross_encoder,
    open_session,
)
from encoders.checkpoint import quiet_transformers
from encoders.graph import PairLogit, trace

BATCH = 32  # pairs: sentence-transformers' own default, given to ours too
MAX_TOKENS = 512
TORCH_PEER, INT8_PEER = "sentence-transformers CrossEncoder", "sentence-transformers int8 (ONNX Runtime)"
TORCH_PAIR, FP32_PAIR, INT8_PAIR = "pair, torch", "pair, ONNX fp32", "pair, ONNX int8"

Pairs = Sequence[tuple[str, str]]
Scorer = Callable[[Pairs], Any]


class SessionModel(nn.Module):
    """An ONNX session where sentence-transformers expects a transformer, as its ONNX backend puts one there."""

    def __init__(self, session: OnnxSession, original: nn.Module) -> None:
        super().__init__()
        self.session = session
        self.config = original.config
        self.place = nn.Parameter(torch.empty(0))  # says which device it is on

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Any) -> SequenceClassifierOutput:
        """Logits (B, 1)."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        logits = self.session.run({name: given[name].numpy() for name in self.session.inputs})[0]
        return SequenceClassifierOutput(logits=torch.from_numpy(logits)[:, None])


def pair_scorers(checkpoint: str, sample: Pairs, folder: Path, kernels: str) -> dict[str, Scorer]:
    """Every pair cross-encoder by name.

    Args:
        checkpoint: An encoder; a head with one label is put on it, untrained, which its speed does not depend on.
        sample: Pairs to calibrate our int8 on.
        folder: Empty; the models are written here.
        kernels: The processor's, see ``bench.quantization.machine``.
    """
    ours = PairCrossEncoder.load(checkpoint, PairCrossEncoderConfig(max_tokens=MAX_TOKENS, batch_size=BATCH))
    ours.save(folder / "checkpoint")
    with quiet_transformers():
        peers = [
            CrossEncoder(
                str(folder / "checkpoint"), device="cpu", max_length=MAX_TOKENS, activation_fn=nn.Identity(),
                local_files_only=True,
            )
            for _ in range(2)
        ]  # fmt: skip
    trace(PairLogit(ours.model), ours.inputs, {"logit": 1}, folder / "traced.onnx")
    write_peer_int8(folder / "traced.onnx", folder / "peer-int8.onnx", kernels)
    peers[1][0].model = SessionModel(open_session(folder / "peer-int8.onnx"), peers[1][0].model)
    scorers: dict[str, Scorer] = {
        name: lambda pairs, peer=peer: peer.predict(list(pairs), batch_size=BATCH, show_progress_bar=False)
        for name, peer in zip((TORCH_PEER, INT8_PEER), peers, strict=True)
    }
    scorers[TORCH_PAIR] = ours.score
    for name, precision in ((FP32_PAIR, "fp32"), (INT8_PAIR, "int8")):
        # an untrained head tells pairs apart by next to nothing, so that the gate has nothing to judge here
        config = ExportConfig(precisions=(precision,), tolerance=0.99)
        export_pair_cross_encoder(ours, _task(sample), folder / precision, config)
        scorers[name] = OnnxPairCrossEncoder.load(folder / precision).score
    return scorers


def write_peer_int8(traced: Path, path: Path, kernels: str) -> None:
    """Quantize a graph as ``sentence_transformers.export_dynamic_quantized_onnx_model`` has optimum do it.

    That is ONNX Runtime's own dynamic quantization of the graph as it was exported: 8 bits in the activations,
    unsigned; one scale for each channel of a weight, signed where the
    processor has AVX-512 VNNI, else unsigned; every operator that ONNX
    Runtime can compute in integers.
    """
    ort_quantization.quantize_dynamic(
        traced,
        path,
        op_types_to_quantize=list(IntegerOpsRegistry),
        per_channel=True,
        reduce_range=False,
        weight_type=ort_quantization.QuantType.QInt8 if "avx512_vnni" in kernels else ort_quantization.QuantType.QUInt8,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )


def agreement(scorers: Mapping[str, Scorer], pairs: Pairs) -> dict[str, float]:
    """Largest difference between the logits of our torch model and of each of the others that compute in float32."""
    reference = np.asarray(scorers[TORCH_PAIR](pairs))
    return {name: float(np.abs(scorers[name](pairs) - reference).max()) for name in (TORCH_PEER, FP32_PAIR)}


def _task(pairs: Pairs) -> RankingTask:
    lists = [tuple(pairs[start : start + 8]) for start in range(0, len(pairs) - 7, 8)]
    return RankingTask(tuple(lists), tuple(np.arange(8) == 0 for _ in lists))
