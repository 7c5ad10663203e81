"""The longest context that each model was published for."""

MAX_CONTEXT_TOKENS = {
    "Qwen/Qwen3-8B": 40960,
    "Qwen/Qwen3-30B-A3B": 40960,
    "meta-llama/Meta-Llama-3.1-8B": 131072,
    "meta-llama/Meta-Llama-3.1-70B": 131072,
    "deepseek-ai/DeepSeek-V2-Lite": 163840,
}
"""Tokens of prompt and output by model id: `max_position_embeddings` of the model's config.json on Hugging Face."""
