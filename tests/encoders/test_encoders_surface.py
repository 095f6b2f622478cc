import encoders


def test_the_public_names_are_these():
    assert encoders.__all__ == [
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
    assert all(hasattr(encoders, name) for name in encoders.__all__)
