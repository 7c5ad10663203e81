"""A model folder without weights: a tokenizer of numbered words and a minimal configuration, for mock workers."""

import json
from pathlib import Path

MODEL = "mock"
VOCABULARY = 1000
"""Token ids; 0 to 2 are special."""


def write_model_folder(folder: Path, longest_context: int) -> None:
    """Write the files that Dynamo reads from a model folder."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"t{number}": number for number in range(3, VOCABULARY)}
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    chat = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": longest_context,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    special = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": chat}
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in (
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special}),
        ("config.json", config),
    ):
        (folder / name).write_text(json.dumps(contents), encoding="utf-8")
