# SPDX-License-Identifier: Apache-2.0
"""Compares one alignment, one distillation and one score step with the same steps written in PyTorch and transformers.

Both sides have the shapes of SmolLM2-135M with random weights, the same batch, type and number of threads, and whole
steps: forward, backward, clipping, AdamW (the peer: torch.optim.AdamW, fused). The peer's linear layers are the gated
delta net of the paper (gdn_v4) around transformers' torch_chunk_gated_delta_rule, or gated linear attention (--variant gla_v1)
around flash-linear-attention's chunk_gla; its attention is transformers' own (sdpa). In bf16 the peer keeps bf16 weights and
moments, which is faster than the fp32 masters it is compared with. The two take turns, so that both see the same machine;
medians of the rounds are printed.

On a GPU (--device cuda) the peer's rule can be flash-linear-attention's kernels (--rule fla), and another shape is there.
MFU counts the same operations for both sides, those that the benchmark program prints, against the data sheet's dense bf16
peak, where the GPU is known. --triton-configs N keeps N of the variants that each Triton kernel would try, to save the time
of compiling them; say so where you report such numbers. flash-linear-attention refuses its backward on Hopper GPUs with Triton
3.4 to 3.7.0, whose gradients are wrong there (its issue 640); here it is timed all the same, since only its time matters.
--profile FILE appends where our device time goes (GPUs only).

usage: training_step_peer.py BENCHMARK_PROGRAM [--case SHAPE:SEQUENCESxTIME ... ] [--type bf16 --threads 2 --rounds 3 --layers 30]
           [--device cpu|cuda --rule transformers|fla --variant gdn_v4|gla_v1 --triton-configs N --profile FILE]
SHAPE: smollm2-135m or qwen2.5-1.5b. Without --case: smollm2-135m:4x512.
"""
import argparse
import contextlib
import gc
import re
import shlex
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, flop/s
SHAPES = {
    "smollm2-135m": (LlamaConfig, LlamaForCausalLM, 30, dict(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
        max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True)),
    "qwen2.5-1.5b": (Qwen2Config, Qwen2ForCausalLM, 28, dict(
        vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_attention_heads=12, num_key_value_heads=2,
        max_position_embeddings=32768, rms_norm_eps=1e-6, tie_word_embeddings=True)),
}


def load_rule(name, variant, triton_configs):
    """The peer's gated delta rule, as chunk_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=True), or its gated linear attention,
    as chunk_gla(q, k, v, g)."""
    if name == "transformers":
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule
        return torch_chunk_gated_delta_rule
    import triton
    if triton_configs:
        autotune = triton.autotune
        triton.autotune = lambda configs, **options: autotune(configs[::max(1, len(configs) // triton_configs)][:triton_configs], **options)
    if variant == "gla_v1":
        from fla.ops.gla import chunk_gla
        return chunk_gla
    from fla.ops.common import chunk_o
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    chunk_o.TRITON_ABOVE_3_7_1 = True
    return chunk_gated_delta_rule


class LinearMixer(torch.nn.Module):
    """What the linear layers have in common: projections by head, norm and gate of the output."""

    def __init__(self, hidden, heads, dim, eps, rule):
        super().__init__()
        self.heads, self.dim, self.eps, self.rule = heads, dim, eps, rule
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (torch.nn.Linear(hidden, heads * dim, bias=False) for _ in range(4))
        self.o_proj = torch.nn.Linear(heads * dim, hidden, bias=False)
        self.o_norm = torch.nn.Parameter(torch.ones(dim))

    def split(self, x):
        return x.unflatten(-1, (self.heads, self.dim))

    def forward(self, hidden_states, **_):
        x = hidden_states
        q, k, v, gate = (self.split(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj, self.g_proj))
        o = F.rms_norm(self.mix(x, q, k, v), (self.dim,), self.o_norm, self.eps) * F.silu(gate)
        return self.o_proj(o.flatten(-2)), None


class GatedDeltaNet(LinearMixer):
    def __init__(self, hidden, heads, *rest):
        super().__init__(hidden, heads, *rest)
        self.a_proj, self.b_proj = (torch.nn.Linear(hidden, heads, bias=False) for _ in range(2))
        self.A_log = torch.nn.Parameter(torch.rand(heads))
        self.dt_bias = torch.nn.Parameter(torch.rand(heads))

    def mix(self, x, *qkv):
        g = -self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias.float())
        return self.rule(*map(F.silu, qkv), g, self.b_proj(x).sigmoid(), use_qk_l2norm_in_kernel=True)[0]


class GatedLinearAttention(LinearMixer):
    def __init__(self, hidden, heads, dim, *rest):
        super().__init__(hidden, heads, dim, *rest)
        self.gk_proj = torch.nn.Sequential(torch.nn.Linear(hidden, 16, bias=False), torch.nn.Linear(16, heads * dim))

    def mix(self, x, *qkv):
        return self.rule(*qkv, self.split(F.logsigmoid(self.gk_proj(x)) / 16))[0]


MIXERS = {"gdn_v4": GatedDeltaNet, "gla_v1": GatedLinearAttention}


def make_models(shape, layers, dtype, device, variant, rule):
    config_class, model_class, _, sizes = SHAPES[shape]
    config = config_class(num_hidden_layers=layers, **sizes)
    hidden, heads = config.hidden_size, config.num_attention_heads
    mixer = lambda: MIXERS[variant](hidden, heads, hidden // heads, config.rms_norm_eps, rule)
    with torch.device(device):
        teacher = model_class(config).to(dtype).eval().requires_grad_(False)
        students = []
        for keeps_softmax in (lambda i: i % 4 == 3, lambda i: i == layers // 2):
            student = model_class(config)
            for i, layer in enumerate(student.model.layers):
                if not keeps_softmax(i):
                    layer.self_attn = mixer()
            students.append(student.to(dtype).train())
        mixers = torch.nn.ModuleList(mixer() for _ in range(layers))
        return teacher, *students, mixers.to(dtype)


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
        ((mixer(x)[0] - target).float().norm(dim=-1) / x.shape[-1] ** 0.5).mean().div(len(pairs)).backward()
    finish(mixers, optimizer)


def distill_step(teacher, student, optimizer, tokens, states=None):
    """`states`: the teacher's hidden states of these tokens, where they are known."""
    with torch.no_grad():
        target = teacher(tokens, use_cache=False).logits if states is None else teacher.lm_head(states)
        target = target.float().log_softmax(-1)
    logits = student(tokens, use_cache=False).logits.float().log_softmax(-1)
    F.kl_div(logits.flatten(0, 1), target.flatten(0, 1), log_target=True, reduction="batchmean").backward()
    finish(student, optimizer)


def finish(module, optimizer):
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def timed(function, *arguments):
    wait = torch.cuda.synchronize if arguments[-1].is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    function(*arguments)
    wait()
    return time.perf_counter() - start


def time_peer(a, shape, layers, tokens, rule):
    """Seconds of each step in every round. One student's moments at a time: memory is what limits the shapes."""
    dtype = torch.bfloat16 if a.type == "bf16" else torch.float32
    teacher, student, candidate, mixers = make_models(shape, layers, dtype, a.device, a.variant, rule)
    with torch.no_grad():
        states = teacher.model(tokens)[0]
    seconds = []
    for step, trained, *known in ((align_step, mixers), (distill_step, student), (distill_step, candidate, states)):
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5, fused=True)
        arguments = (step, teacher, trained, optimizer, tokens, *known)
        timed(*arguments)
        seconds.append([timed(*arguments) for _ in range(0 if a.warm else a.rounds)])
    return seconds


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built training_step_benchmark, or a command that starts it")
    for name, standard in dict(threads=2, rounds=3, triton_configs=0).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=standard)
    parser.add_argument("--layers", type=int, help="(default: the shape's)")
    parser.add_argument("--type", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--case", nargs="+", default=["smollm2-135m:4x512"], metavar="SHAPE:SEQUENCESxTIME")
    parser.add_argument("--profile", metavar="FILE")
    parser.add_argument("--rule", choices=["transformers", "fla"], default="transformers")
    parser.add_argument("--variant", choices=MIXERS, default="gdn_v4")
    parser.add_argument("--warm", action="store_true", help="only run the peer once, which compiles its kernels; nothing is timed")
    a = parser.parse_args()
    if a.variant == "gla_v1" and a.rule != "fla":
        parser.error("--variant gla_v1 needs --rule fla (transformers has no gated linear attention)")
    return a


def run_ours(a, shape, sequences, time, layers, rounds):
    """Seconds of the steps, and operations per token of each."""
    command = [*shlex.split(a.program), *map(str, (sequences, time, a.type, a.threads, rounds, layers, a.device, shape))]
    command += ["15" if a.profile else "0", a.variant]
    with open(a.profile, "a") if a.profile else contextlib.nullcontext() as errors:
        output = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=True).stdout
    values = [float(value) for value in output.split()]
    return values[:3], values[3:]


def compare(a, shape, sequences, time, rule):
    layers = a.layers or SHAPES[shape][2]
    tokens = torch.randint(SHAPES[shape][3]["vocab_size"], (sequences, time), device=a.device)
    if a.warm:
        time_peer(a, shape, layers, tokens, rule)
        return
    # The shares of memory must not meet on a GPU: ours is another process, which has ended before the peer begins. On a
    # CPU the two take turns, so that both see the same machine.
    if a.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        rounds = [run_ours(a, shape, sequences, time, layers, a.rounds)]
        peer = time_peer(a, shape, layers, tokens, rule)
    else:
        rounds, peer, count = [], [[], [], []], a.rounds
        a.rounds = 1
        for _ in range(count):
            rounds.append(run_ours(a, shape, sequences, time, layers, 1))
            for all_seconds, seconds in zip(peer, time_peer(a, shape, layers, tokens, rule)):
                all_seconds += seconds
        a.rounds = count

    count = sequences * time
    device = torch.cuda.get_device_name() if a.device == "cuda" else "cpu"
    peak = next((value for name, value in PEAKS.items() if name in device), None) if a.type == "bf16" else None
    for i, step in enumerate(("alignment", "distillation", "score")):
        ours, theirs = statistics.median(seconds[i] for seconds, _ in rounds), statistics.median(peer[i])
        mfu = [f"{rounds[0][1][i] * count / t / peak:.3f}" if peak else "" for t in (ours, theirs)]
        print(f"{step},{a.type},{a.threads},{count / ours:.0f},{count / theirs:.0f},{theirs / ours:.2f},{device},{shape},"
              f"{sequences},{time},{a.rule},{mfu[0]},{mfu[1]},{a.variant}", flush=True)


def main():
    a = options()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    rule = load_rule(a.rule, a.variant, a.triton_configs)
    if not a.warm:
        print("step,type,threads,amalgam_tokens_per_second,peer_tokens_per_second,ratio_of_medians,device,shape,sequences,time,"
              "peer_rule,amalgam_mfu,peer_mfu,variant", flush=True)
    for case in a.case:
        shape, sequences, time = re.fullmatch(r"(.+):(\d+)x(\d+)", case).groups()
        compare(a, shape, int(sequences), int(time), rule)


if __name__ == "__main__":
    main()
