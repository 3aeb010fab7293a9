# SPDX-License-Identifier: Apache-2.0
"""What flash-linear-attention computes from an exported folder of model type kda, in plain PyTorch: its KDAForCausalLM needs
a GPU to be imported. The rule itself is transformers' chunk_kimi_delta_attention."""
import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention


class Kda:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {}
        for file in folder.glob("*.safetensors"):
            self.tensors.update(load_file(file))
        self.used = set()

    def take(self, name):
        self.used.add(name)
        return self.tensors[name].float()

    def linear(self, x, name):
        bias = f"{name}.bias"
        return F.linear(x, self.take(f"{name}.weight"), self.take(bias) if bias in self.tensors else None)

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.take(f"{name}.weight"), self.config["norm_eps"])

    def kda(self, x, name):
        heads, dim = self.config["num_heads"], self.config["head_dim"]
        parts = []
        for part in "qkv":
            y = self.linear(x, f"{name}.{part}_proj")
            if self.config["use_short_conv"]:
                taps = self.take(f"{name}.{part}_conv1d.weight")
                y = F.conv1d(F.pad(y.transpose(1, 2), (taps.shape[-1] - 1, 0)), taps, groups=y.shape[-1]).transpose(1, 2)
            parts.append(F.silu(y).unflatten(-1, (heads, dim)))
        a = self.linear(self.linear(x, f"{name}.f_proj.0"), f"{name}.f_proj.1")
        z, rate = (a + self.take(f"{name}.dt_bias")).unflatten(-1, (heads, dim)), self.take(f"{name}.A_log").exp()[:, None]
        bound = self.config["lower_bound"]
        g = -rate * F.softplus(z) if bound is None else bound * torch.sigmoid(rate * z)
        beta = torch.sigmoid(self.linear(x, f"{name}.b_proj"))
        o, _ = chunk_kimi_delta_attention(*parts, g, beta, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=True)
        gate = torch.sigmoid(self.linear(self.linear(x, f"{name}.g_proj.0"), f"{name}.g_proj.1"))
        return self.linear(self.norm(o, f"{name}.o_norm").flatten(-2) * gate, f"{name}.o_proj")

    def softmax(self, x, name):
        attn, time = self.config["attn"], x.shape[1]
        dim = self.config["hidden_size"] // attn["num_heads"]
        angles = torch.arange(time)[:, None] * attn["rope_theta"] ** (-torch.arange(0, dim, 2) / dim)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

        def heads(part, turn):
            y = self.linear(x, f"{name}.{part}_proj").unflatten(-1, (-1, dim)).transpose(1, 2)
            first, second = y.chunk(2, -1)
            return y * cos + torch.cat((-second, first), -1) * sin if turn else y

        o = F.scaled_dot_product_attention(heads("q", True), heads("k", True), heads("v", False), is_causal=True, enable_gqa=True)
        return self.linear(o.transpose(1, 2).flatten(-2), f"{name}.o_proj")

    def logits(self, tokens):
        x = F.embedding(tokens, self.take("model.embeddings.weight"))
        kept = self.config.get("attn", {}).get("layers", [])
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            mix = self.softmax if layer in kept else self.kda
            x = x + mix(self.norm(x, f"{name}.attn_norm"), f"{name}.attn")
            y = self.norm(x, f"{name}.mlp_norm")
            x = x + self.linear(F.silu(self.linear(y, f"{name}.mlp.gate_proj")) * self.linear(y, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj")
        tied = self.config["tie_word_embeddings"]
        return F.linear(self.norm(x, "model.norm"), self.take("model.embeddings.weight" if tied else "lm_head.weight"))
