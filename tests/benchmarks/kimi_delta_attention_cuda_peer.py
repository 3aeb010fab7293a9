# SPDX-License-Identifier: Apache-2.0
"""Times the Kimi Delta Attention of flash-linear-attention (fla) on this machine's GPU beside
kimi_delta_attention_cuda_benchmark, in one run.

All get bf16 q, k, v, raw gates and beta logits, normalise q and k and work the gates out inside. fla is timed with both
gates: softplus, and bounded at -5 (`safe_gate`), which lets it use tensor cores for pairs of neighbouring tokens; ours takes
the same time for either. Medians by CUDA events over inputs in different memory, nanoseconds per token and head; decoding:
20 steps in a CUDA graph on both sides. Packed: the lengths of the benchmark program.
fla's Triton kernels choose among N variants each (--triton-configs); backends that replace them are switched off.
--warm only compiles them, --check compares fla's output and gradients with the recurrence in fp32; nothing is timed then.
--graphs times fla's passes in CUDA graphs too ("in a graph"), without the host's time to start kernels from Python.
--flash-kda adds the forward pass of FlashKDA (package flash_kda; dimension 128, bounded gate; with --check its error).

usage: kimi_delta_attention_cuda_peer.py BENCHMARK_PROGRAM [--csv FILE --triton-configs 3 --shapes 0 1 --gates softplus
           --warm --check --graphs --flash-kda]
"""
import argparse
import csv
import os
import subprocess

import torch

from gpu_peers import limit_triton_configs, median_milliseconds, time_passes

# sequences, time, heads, dim, kind
SHAPES = [(32, 512, 9, 64, ""), (96, 512, 12, 128, ""), (4, 4096, 12, 128, ""), (8, 1024, 8, 64, ""),
          (1, 8192, 64, 128, ""), (16, 1024, 12, 128, "packed"), (32, 512, 9, 64, "packed"),
          (1, 1, 16, 128, "decode"), (32, 1, 16, 128, "decode"), (256, 1, 16, 128, "decode"), (256, 1, 16, 64, "decode")]
GATES = {"softplus": {}, "bounded": {"safe_gate": True, "lower_bound": -5.0}}
DECODE_STEPS = 20


def rising_starts(sequences, time):
    """As in the benchmark program."""
    return [i * time // 4 + 3 * time * i * (i - 1) // (4 * (sequences - 1)) for i in range(sequences + 1)]


def random_inputs(shape, gate):
    """q, k, v, raw gates, beta logits; and what else fla is to be called with."""
    sequences, time, heads, dim, kind = shape
    batch, length = sequences, time
    options = {"use_qk_l2norm_in_kernel": True, "use_gate_in_kernel": True, "use_beta_sigmoid_in_kernel": True,
               "A_log": torch.zeros(heads, device="cuda"), "dt_bias": torch.full((heads * dim,), -2.0, device="cuda"),
               **GATES[gate]}
    if kind == "packed":
        batch, length = 1, sequences * time
        options["cu_seqlens"] = torch.tensor(rising_starts(sequences, time), device="cuda")
    four = [torch.randn(batch, length, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    return [*four, torch.randn(batch, length, heads, device="cuda", dtype=torch.bfloat16)], options


def recurrence(q, k, v, a, b, options):
    q, k, v, a, b = (x.float() for x in (q, k, v, a, b))
    z = a + options["dt_bias"].view(*a.shape[2:])
    bound = options.get("lower_bound")
    g = -torch.nn.functional.softplus(z) if bound is None else bound * z.sigmoid()  # A_log is 0
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    state, outputs = torch.zeros(*q[:, 0].shape, v.shape[-1], device="cuda"), []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp().unsqueeze(-1)
        error = v[:, t] - (k[:, t].unsqueeze(-2) @ state).squeeze(-2)
        state = state + k[:, t].unsqueeze(-1) * (b[:, t].sigmoid().unsqueeze(-1) * error).unsqueeze(-2)
        outputs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2) * q.shape[-1] ** -0.5)
    return torch.stack(outputs, 1)


def relative_error(found, expected):
    """RMS of the error over RMS of what is expected."""
    found, expected = found.float(), expected.float()
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


def check(rule, dim, gate):
    """Prints the relative errors of the output and of the gradients of q, k, v, a and b."""
    inputs, options = random_inputs((2, 200, 2, dim, ""), gate)
    gradient = torch.randn_like(inputs[2])
    results = []
    for call in (lambda x: rule(*x, **options)[0], lambda x: recurrence(*x, options)):
        x = [y.clone().requires_grad_() for y in inputs]
        output = call(x)
        results.append([output, *torch.autograd.grad(output, x, gradient.to(output.dtype))])
    errors = [relative_error(x, y) for x, y in zip(*results)]
    print(f"# fla's errors, dim {dim}, {gate}: " + " ".join(f"{n} {e:.4f}" for n, e in zip("o dq dk dv da db".split(), errors)),
          flush=True)


def check_flash_kda():
    inputs, options = random_inputs((2, 200, 2, 128, ""), "bounded")
    error = relative_error(flash_kda_forward(inputs, options), recurrence(*inputs, options))
    print(f"# FlashKDA's error, dim 128, bounded: o {error:.4f}", flush=True)


def flash_kda_forward(inputs, options):
    """FlashKDA's forward pass on fla's inputs and options; it knows the bounded gate and dimension 128 alone."""
    import flash_kda
    q, k, v, a, b = (x.detach() for x in inputs)
    output = torch.empty_like(v)
    flash_kda.fwd(q, k, v, a, b, q.shape[-1] ** -0.5, output, options["A_log"],
                  options["dt_bias"].view(*a.shape[2:]), options["lower_bound"], cu_seqlens=options.get("cu_seqlens"))
    return output


def time_decoding(rule, shape, gate, repetitions):
    sequences, _, heads, dim, _ = shape
    inputs, options = random_inputs(shape, gate)
    options.pop("safe_gate", None)
    states = [torch.zeros(sequences, heads, dim, dim, device="cuda") for _ in range(4)]

    def steps():
        for i in range(DECODE_STEPS):
            rule(*inputs, initial_state=states[i % 4], output_final_state=True, **options)

    with torch.no_grad():
        steps()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            steps()
        return {"decode": median_milliseconds(lambda _: graph.replay(), repetitions) / DECODE_STEPS}


def time_ours(program, shape):
    arguments = [*map(str, shape[:4]), *([shape[4]] if shape[4] else [])]
    output = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in output.splitlines()
            if line.count(",") == 7 and not line.startswith(("operation", "gated"))]
    return {row[0].removesuffix(" packed"): float(row[5]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built kimi_delta_attention_cuda_benchmark")
    parser.add_argument("--csv")
    parser.add_argument("--triton-configs", type=int, default=3)
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="which of the script's shapes")
    parser.add_argument("--gates", nargs="+", choices=GATES, default=list(GATES))
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--flash-kda", action="store_true")
    a = parser.parse_args()
    os.environ.update(FLA_FLASH_KDA="0", FLA_TILELANG="0")
    limit_triton_configs(a.triton_configs)
    from fla.ops.kda import chunk_kda, fused_recurrent_kda
    if a.check:
        for dim in (64, 128):
            for gate in a.gates:
                check(chunk_kda, dim, gate)
        if a.flash_kda:
            check_flash_kda()
        return
    rows = []
    for shape in (SHAPES[i] for i in a.shapes):
        repetitions = 1 if a.warm else 15
        ours = {} if a.warm else time_ours(a.program, shape)
        count = shape[0] * shape[1] * shape[2] / 1e6
        for gate in a.gates:
            if shape[4] == "decode":
                times = time_decoding(fused_recurrent_kda, shape, gate, repetitions)
            else:
                sets = []
                for _ in range(2):
                    inputs, options = random_inputs(shape, gate)
                    sets.append([x.requires_grad_() for x in inputs])
                run = lambda x: chunk_kda(*x, **options)[0]
                times = time_passes(run, sets, repetitions)
            found = [(f"fla {gate}", times)]
            if a.graphs and shape[4] != "decode":
                found.append((f"fla {gate} in a graph", time_passes(run, sets, repetitions, in_graph=True)))
            if a.flash_kda and gate == "bounded" and shape[3] == 128 and shape[4] != "decode":
                flash = lambda i: flash_kda_forward(sets[i % 2], options)
                found.append(("FlashKDA", {"forward": median_milliseconds(flash, repetitions)}))
            if a.warm:
                continue
            for peer, times in found:
                for operation, time in times.items():
                    rows.append([*shape[:4], f"{operation} packed" if shape[4] == "packed" else operation, peer,
                                 f"{ours[operation] / count:.3f}", f"{time / count:.3f}", f"{time / ours[operation]:.2f}"])
                    print(*rows[-1], sep=",", flush=True)
    if a.csv:
        with open(a.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow("sequences time heads dim operation peer ours_ns peer_ns peer_over_ours".split())
            writer.writerows(rows)


if __name__ == "__main__":
    main()
