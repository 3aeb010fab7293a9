# SPDX-License-Identifier: Apache-2.0
"""Turns a GGUF file of the Llama family (byte-level BPE tokenizer) into a Hugging Face folder with bf16 weights.

Writes config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json. Needs neither
torch nor transformers. GGUF keys: the GGUF specification; tensor names: LlamaForCausalLM of transformers.
"""

import json
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from safetensors_file import write_bfloat16_tensors

# Tensor names without their ".weight"; inside a block the GGUF prefix is "blk.N.", ours "model.layers.N.".
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL_TOKEN = 3  # value of tokenizer.ggml.token_type for tokens like <|im_start|>


class ConversionError(Exception):
    """A GGUF file that this converter cannot represent; the message is one line for the user."""


def write_hugging_face_folder(gguf_path: Path, folder: Path) -> dict[str, int]:
    """Fills an existing folder; returns how many tensors had which GGUF type."""
    reader = gguf.GGUFReader(gguf_path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    config = make_config(gguf_path, metadata, {tensor.name for tensor in reader.tensors})
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", make_generation_config(config))
    write_tensors(gguf_path, reader, config, folder / "model.safetensors")
    write_tokenizer(gguf_path, metadata, config, folder)
    return dict(Counter(tensor.tensor_type.name for tensor in reader.tensors))


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_config(gguf_path: Path, metadata: dict, tensor_names: set[str]) -> dict:
    """config.json of LlamaForCausalLM; the rotary base under both names that transformers has used."""
    if metadata.get("general.architecture") != "llama":
        raise ConversionError(
            f'{gguf_path}: architecture is "{metadata.get("general.architecture")}" (only "llama" is known)'
        )
    if any(name.startswith("llama.rope.scaling") for name in metadata) or "rope_freqs.weight" in tensor_names:
        raise ConversionError(f"{gguf_path}: has rotary scaling (only plain rotary embeddings are converted)")

    hidden_size = metadata["llama.embedding_length"]
    heads = metadata["llama.attention.head_count"]
    head_dim = metadata.get("llama.attention.key_length", hidden_size // heads)
    if metadata.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise ConversionError(f"{gguf_path}: rotates only a part of each head (LlamaForCausalLM rotates all of it)")
    rope_theta = float(metadata["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        # GGUF stores 1e-5 as a float32; its shortest decimal form is the number that was meant.
        "rms_norm_eps": float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
        "rope_scaling": None,
        "rope_theta": rope_theta,
        "tie_word_embeddings": "output.weight" not in tensor_names,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": metadata["llama.vocab_size"],
    }


def make_generation_config(config: dict) -> dict:
    return {"_from_model_config": True} | {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def hugging_face_name(gguf_name: str) -> str | None:
    """The name of a tensor in LlamaForCausalLM, or None if there is no such tensor."""
    stem, _, suffix = gguf_name.rpartition(".")
    if suffix != "weight":
        return None
    if stem in MODEL_NAMES:
        return f"{MODEL_NAMES[stem]}.weight"
    prefix, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if prefix == "blk" and layer.isdigit() and part in BLOCK_NAMES:
        return f"model.layers.{layer}.{BLOCK_NAMES[part]}.weight"
    return None


def undo_rotary_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q_proj or k_proj, from GGUF order to Hugging Face order.

    GGUF keeps the two numbers that are rotated together side by side (x0 y0 x1 y1 ...); transformers keeps all the
    first ones of a head, then all the second ones (x0 x1 ... y0 y1 ...).
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to the 16 bits of bf16 (as uint16), rounded to nearest, ties to even; finite values only."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_tensors(gguf_path: Path, reader: gguf.GGUFReader, config: dict, path: Path) -> None:
    tensors = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        if name is None:
            raise ConversionError(
                f'{gguf_path}: tensor "{tensor.name}" has no place in LlamaForCausalLM (it would be lost)'
            )
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if not np.isfinite(weight).all():
            raise ConversionError(f'{gguf_path}: tensor "{tensor.name}" holds values that are not finite')
        if name.endswith("q_proj.weight"):
            weight = undo_rotary_permutation(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = undo_rotary_permutation(weight, config["num_key_value_heads"])
        tensors[name] = to_bfloat16(weight)

    layers = config["num_hidden_layers"]
    expected = layers * len(BLOCK_NAMES) + len(MODEL_NAMES) - int(config["tie_word_embeddings"])
    if len(tensors) != expected:
        raise ConversionError(
            f"{gguf_path}: holds {len(tensors)} tensors (a Llama with {layers} layers has {expected})"
        )
    write_bfloat16_tensors(path, tensors)


def write_tokenizer(gguf_path: Path, metadata: dict, config: dict, folder: Path) -> None:
    if (metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise ConversionError(
            f'{gguf_path}: tokenizer is "{metadata["tokenizer.ggml.model"]}" with splitting rule '
            f'"{metadata.get("tokenizer.ggml.pre")}" (only "gpt2" with "smollm" is converted)'
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    # The splitting rule "smollm": every digit alone, then the rule of GPT-2.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    if tokenizer.get_vocab_size() != config["vocab_size"]:
        raise ConversionError(
            f"{gguf_path}: the tokenizer has {tokenizer.get_vocab_size()} tokens but the model {config['vocab_size']} "
            "(repeated tokens?)"
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            # The class that takes tokenizer.json as it is; GPT2Tokenizer would put its own splitting rule in its place.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "bos_token": tokens[config["bos_token_id"]],
            "eos_token": tokens[config["eos_token_id"]],
            "pad_token": tokens[config["pad_token_id"]],
            "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
            "additional_special_tokens": control,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
            "chat_template": metadata["tokenizer.chat_template"],
        },
    )
