# SPDX-License-Identifier: Apache-2.0
"""Small random teachers of every variant that Amalgam reads, written as Hugging Face folders."""
import json
from pathlib import Path

import h5py
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 301
SIZES = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)


def rope(kind, theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


# name: (config class, model class, config arguments)
VARIANTS = {
    "llama": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=rope("default"))),
    "llama_theta": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=rope("default", 500000.0), tie_word_embeddings=True)),
    "llama_llama3": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=LLAMA3)),
    "llama_linear": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=rope("linear", factor=4.0))),
    "llama_dynamic": (LlamaConfig, LlamaForCausalLM, dict(rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=64)),
    "llama_yarn": (LlamaConfig, LlamaForCausalLM,
                   dict(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64), max_position_embeddings=256)),
    "llama_yarn_mscale": (LlamaConfig, LlamaForCausalLM,
                          dict(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.5,
                                                    beta_fast=16.0, beta_slow=2.0, truncate=False), max_position_embeddings=256)),
    "llama_yarn_attention_factor": (LlamaConfig, LlamaForCausalLM,
                                    dict(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64, attention_factor=1.3),
                                         max_position_embeddings=256)),
    "llama_biases": (LlamaConfig, LlamaForCausalLM, dict(attention_bias=True, mlp_bias=True, rope_parameters=rope("default"))),
    "llama_attention_bias": (LlamaConfig, LlamaForCausalLM, dict(attention_bias=True, rope_parameters=rope("default"))),
    "llama_head_dim": (LlamaConfig, LlamaForCausalLM, dict(head_dim=24, rope_parameters=rope("default"))),
    "llama_one_group": (LlamaConfig, LlamaForCausalLM, dict(num_key_value_heads=4, rope_parameters=rope("default"))),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(rope_parameters=rope("default", 1000000.0))),
    "qwen2_tied": (Qwen2Config, Qwen2ForCausalLM, dict(tie_word_embeddings=True, rope_parameters=rope("default"))),
    "qwen2_window": (Qwen2Config, Qwen2ForCausalLM,
                     dict(use_sliding_window=True, sliding_window=20, max_window_layers=2, rope_parameters=rope("default"))),
    "qwen2_window_by_layer": (Qwen2Config, Qwen2ForCausalLM,
                              dict(use_sliding_window=True, sliding_window=20, rope_parameters=rope("default"),
                                   layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"])),
    "qwen2_window_unused": (Qwen2Config, Qwen2ForCausalLM,
                            dict(use_sliding_window=False, sliding_window=20, max_window_layers=2, rope_parameters=rope("default"))),
    "qwen3_biases": (Qwen3Config, Qwen3ForCausalLM, dict(head_dim=16, attention_bias=True, rope_parameters=rope("default"))),
    "qwen3_window": (Qwen3Config, Qwen3ForCausalLM,
                     dict(head_dim=16, use_sliding_window=True, sliding_window=20, max_window_layers=1, rope_parameters=rope("default"))),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(head_dim=32, rope_parameters=rope("default", 1000000.0))),
    "qwen3_yarn": (Qwen3Config, Qwen3ForCausalLM,
                   dict(head_dim=16, tie_word_embeddings=True,
                        rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64))),
}


def make(name, **more):
    """A model with weights large enough for every term to matter, in eval mode, fp32. `more`: of its config."""
    config_class, model_class, arguments = VARIANTS[name]
    torch.manual_seed(sum(name.encode()))
    model = model_class(config_class(**{**SIZES, **arguments, **more})).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if "norm" in parameter_name or "bias" in parameter_name else 0.05))
    return model


def save(model, folder, shard="5GB"):
    model.save_pretrained(folder, max_shard_size=shard)
    return Path(folder)


def as_transformers_4(folder):
    """Rewrites config.json as transformers 4 wrote it: rope_theta and rope_scaling beside each other, torch_dtype."""
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["torch_dtype"] = config.pop("dtype", "float32")
    path.write_text(json.dumps(config))


def write_tokens(path, sequences, time, seed=0):
    """A token file of random tokens; returns them, int64 [sequences, time]."""
    tokens = np.random.default_rng(seed).integers(3, VOCABULARY, size=(sequences, time))
    with h5py.File(path, "w") as file:
        file["tokens"] = tokens.reshape(-1).astype(np.uint16)
        file["document_offsets"] = np.array([0, tokens.size], dtype=np.int64)
        file.attrs["filetype"] = "amalgam tokens"
        file.attrs["format_version"] = np.array([1, 0], dtype=np.int32)
        file.attrs["tokenizer"] = "random"
        file.attrs["tokenizer_sha256"] = "0" * 64
        file.attrs["vocabulary_size"] = np.int64(VOCABULARY)
    return torch.from_numpy(tokens)
