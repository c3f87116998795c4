"""A model file small enough to make in a test: the llama architecture, one layer, random weights.

It says nothing sensible, but in words, and never ends by itself: the way to see that generation was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

CONTEXT: Final = 131_072
"""Tokens. Long enough that only `max_tokens` or a cancelled request ends an answer within a test."""

_WIDTH: Final = 32
_HEADS: Final = 4
_HIDDEN: Final = 64
_WORDS: Final = (
    "▁let",
    "▁x",
    "▁=",
    "▁y",
    "▁+",
    "▁1",
    "▁return",
    "▁call",
    "▁for",
    "▁in",
    "▁list",
    "▁if",
    "▁not",
    ";",
)
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def write_tiny_gguf(path: Path, *, seed: int = 7) -> Path:
    """Write the model to `path` (about 100 KB) and return it. The same seed gives the same model."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_vocabulary(writer)
    for name, weights in _weights(np.random.default_rng(seed), 259 + len(_WORDS)).items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Three control tokens, one a byte (so that any prompt can be read), and the words that are answered."""
    controls, octets = ["<unk>", "<s>", "</s>"], [f"<0x{octet:02X}>" for octet in range(256)]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*controls, *octets, *_WORDS])
    writer.add_token_scores([0.0] * 259 + [-float(place) for place in range(len(_WORDS))])
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256 + [kinds.NORMAL] * len(_WORDS)
    )
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _weights(random: np.random.Generator, vocabulary: int) -> dict[str, np.ndarray]:
    def some(*shape: int, scale: float = 0.05) -> np.ndarray:
        return random.normal(0, scale, shape).astype(np.float32)

    embedding, output = some(vocabulary, _WIDTH, scale=0.3), some(vocabulary, _WIDTH, scale=0.3)
    # Every token points the same way in the first dimension, and there the output wants words: never a control
    # token or a raw byte, which would end the answer or break its text.
    embedding[:, 0] = 3.0
    output[:259, 0], output[259:, 0] = -10.0, 10.0
    one = np.ones(_WIDTH, dtype=np.float32)
    return {
        "token_embd.weight": embedding,
        "output_norm.weight": one,
        "output.weight": output,
        "blk.0.attn_norm.weight": one,
        "blk.0.attn_q.weight": some(_WIDTH, _WIDTH),
        "blk.0.attn_k.weight": some(_WIDTH, _WIDTH),
        "blk.0.attn_v.weight": some(_WIDTH, _WIDTH),
        "blk.0.attn_output.weight": some(_WIDTH, _WIDTH),
        "blk.0.ffn_norm.weight": one,
        "blk.0.ffn_gate.weight": some(_HIDDEN, _WIDTH),
        "blk.0.ffn_up.weight": some(_HIDDEN, _WIDTH),
        "blk.0.ffn_down.weight": some(_WIDTH, _HIDDEN),
    }
