"""Tiny random checkpoints with handmade tokenizers, and tasks that their own models do well."""

import string

import numpy as np
import torch
from scipy import sparse
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from encoders import (
    ExportConfig,
    OnnxTextEncoder,
    RankingTask,
    RetrievalTask,
    export_text_encoder,
)

WORDS = [
    "red",
    "green",
    "blue",
    "old",
    "new",
    "small",
    "large",
    "river",
    "city",
    "night",
    "winter",
    "summer",
    "story",
    "war",
    "love",
    "robot",
    "cat",
    "dog",
]


def wordpiece_tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    pieces += [
        *string.ascii_lowercase,
        *string.digits,
        *(f"##{c}" for c in string.ascii_lowercase + string.digits),
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", padding_side="left")


def bert_config(**changes):
    settings = {
        "vocab_size": 1100,  # over the size from which a table is quantized
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    return BertConfig(**(settings | changes))


def save_checkpoint(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gpt2_checkpoint(folder):
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2,
        bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    return save_checkpoint(folder, GPT2LMHeadModel(config), byte_tokenizer())


def roberta_checkpoint(folder):
    torch.manual_seed(2)
    config = RobertaConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, pad_token_id=0, type_vocab_size=1, initializer_range=0.2,
    )  # fmt: skip
    tokenizer = wordpiece_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return save_checkpoint(folder, RobertaModel(config), tokenizer)


def distilbert_checkpoint(folder):
    torch.manual_seed(4)
    config = DistilBertConfig(
        vocab_size=128, dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=40, initializer_range=0.2,
    )  # fmt: skip
    tokenizer = wordpiece_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return save_checkpoint(folder, DistilBertModel(config), tokenizer)


def catalogue(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) + f" {i}" for i in range(count))


def retrieval_task(encoder, texts, each=3):
    """A task whose truth is the encoder's own nearest texts, so that the original does it well."""
    vectors = encoder.encode(texts)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :each]
    rows = np.repeat(np.arange(len(texts)), each)
    relevant = sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, nearest.ravel())), shape=similarity.shape)
    return RetrievalTask(texts, texts, relevant)


def ranking_task(scorer, count=12, length=8):
    texts = catalogue(count + length)
    lists = tuple(tuple((texts[n], item) for item in texts[count:]) for n in range(count))
    relevant = []
    for pairs in lists:
        scores = scorer.score(pairs)
        relevant.append(scores >= np.sort(scores)[-2])
    return RankingTask(lists, tuple(relevant))


def exported(encoder, folder, precision, lower_layers=None):
    task = retrieval_task(encoder, catalogue())
    export_text_encoder(encoder, task, folder, ExportConfig(precisions=(precision,), tolerance=0.5), lower_layers)
    return OnnxTextEncoder.load(folder)
