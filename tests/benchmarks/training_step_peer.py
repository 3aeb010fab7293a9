# SPDX-License-Identifier: Apache-2.0
"""Compares one alignment and one distillation step with the same steps written in PyTorch and transformers.

Both sides have the shapes of SmolLM2-135M with random weights, the same batch, type and number of threads, and whole
steps: forward, backward, clipping, AdamW (the peer: torch.optim.AdamW, fused). The peer's linear layers are the gated
delta net of the paper (gdn_v4) around transformers' torch_chunk_gated_delta_rule; its attention is transformers' own
(sdpa). In bf16 the peer keeps bf16 weights and moments, which is faster than the fp32 masters it is compared with. The two
take turns, so that both see the same machine; medians of the rounds are printed.

usage: training_step_peer.py BENCHMARK_PROGRAM [--sequences 4 --time 512 --type bf16 --threads 2 --rounds 3 --layers 30]
"""
import argparse
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule


class GatedDeltaNet(torch.nn.Module):
    def __init__(self, hidden, heads, dim, eps):
        super().__init__()
        self.heads, self.dim, self.eps = heads, dim, eps
        linear = lambda rows: torch.nn.Linear(hidden, rows, bias=False)
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (linear(heads * dim) for _ in range(4))
        self.a_proj, self.b_proj = linear(heads), linear(heads)
        self.o_proj = torch.nn.Linear(heads * dim, hidden, bias=False)
        self.A_log = torch.nn.Parameter(torch.rand(heads))
        self.dt_bias = torch.nn.Parameter(torch.rand(heads))
        self.o_norm = torch.nn.Parameter(torch.ones(dim))

    def forward(self, hidden_states, **_):
        x = hidden_states
        split = lambda t: t.unflatten(-1, (self.heads, self.dim))
        q, k, v = (split(F.silu(p(x))) for p in (self.q_proj, self.k_proj, self.v_proj))
        g = -self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias.float())
        o, _ = torch_chunk_gated_delta_rule(q, k, v, g, self.b_proj(x).sigmoid(), use_qk_l2norm_in_kernel=True)
        o = F.rms_norm(o, (self.dim,), self.o_norm, self.eps) * F.silu(split(self.g_proj(x)))
        return self.o_proj(o.flatten(-2)), None


def make_models(layers, dtype):
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
                         num_key_value_heads=3, head_dim=64, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True)
    teacher = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    student = LlamaForCausalLM(config)
    for i, layer in enumerate(student.model.layers):
        if i % 4 != 3:
            layer.self_attn = GatedDeltaNet(576, 9, 64, 1e-5)
    mixers = torch.nn.ModuleList(GatedDeltaNet(576, 9, 64, 1e-5) for _ in range(layers))
    return teacher, student.to(dtype).train(), mixers.to(dtype)


def align_step(teacher, mixers, optimizer, tokens):
    pairs = []
    hooks = [layer.self_attn.register_forward_hook(
        lambda module, args, kwargs, output, mixer=mixer: pairs.append((mixer, kwargs["hidden_states"], output[0])), with_kwargs=True)
        for layer, mixer in zip(teacher.model.layers, mixers)]
    with torch.no_grad():
        teacher.model(tokens)
    for hook in hooks:
        hook.remove()
    for mixer, x, target in pairs:
        ((mixer(x)[0] - target).float().norm(dim=-1) / 576 ** 0.5).mean().div(len(pairs)).backward()
    finish(mixers, optimizer)


def distill_step(teacher, student, optimizer, tokens):
    with torch.no_grad():
        target = teacher(tokens, use_cache=False).logits.float().log_softmax(-1)
    logits = student(tokens, use_cache=False).logits.float().log_softmax(-1)
    F.kl_div(logits.flatten(0, 1), target.flatten(0, 1), log_target=True, reduction="batchmean").backward()
    finish(student, optimizer)


def finish(module, optimizer):
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built training_step_benchmark")
    for name, standard in dict(sequences=4, time=512, threads=2, rounds=3, layers=30).items():
        parser.add_argument(f"--{name}", type=int, default=standard)
    parser.add_argument("--type", choices=["bf16", "fp32"], default="bf16")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if a.type == "bf16" else torch.float32
    teacher, student, mixers = make_models(a.layers, dtype)
    tokens = torch.randint(49152, (a.sequences, a.time))
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-5, fused=True) for m in (mixers, student)]
    align_step(teacher, mixers, optimizers[0], tokens)
    distill_step(teacher, student, optimizers[1], tokens)

    command = [a.program, str(a.sequences), str(a.time), a.type, str(a.threads), "1", str(a.layers)]
    rounds = []
    for _ in range(a.rounds):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        ours = [float(value) for value in output]
        peer = [timed(align_step, teacher, mixers, optimizers[0], tokens), timed(distill_step, teacher, student, optimizers[1], tokens)]
        rounds.append((ours, peer))
    count = a.sequences * a.time
    print(f"step,type,threads,amalgam_tokens_per_second,peer_tokens_per_second,ratio_of_medians  ({a.rounds} rounds, {count} tokens a step)")
    for i, step in enumerate(("alignment", "distillation")):
        ours, peer = (statistics.median(side[i] for side in column) for column in zip(*rounds))
        print(f"{step},{a.type},{a.threads},{count / ours:.0f},{count / peer:.0f},{peer / ours:.2f}")


if __name__ == "__main__":
    main()
