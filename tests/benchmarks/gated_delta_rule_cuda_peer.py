# SPDX-License-Identifier: Apache-2.0
"""Times flash-linear-attention's gated delta rule on this machine's GPU beside gated_delta_rule_cuda_benchmark, in one run.

Both get bf16 q, k and v and normalise q and k inside; ours also computes the gates from their raw inputs, the peer is given
them. Medians by CUDA events over inputs in different memory, nanoseconds per token and head. The peer's Triton kernels
choose among N variants each (--triton-configs, fewer than it would try, to save the time of compiling them).
flash-linear-attention refuses its backward on Hopper GPUs with Triton 3.4 to 3.7.0, whose gradients are wrong there (its
issue 640); here it is timed all the same, since only its time matters. --warm only compiles the peer's kernels.

usage: gated_delta_rule_cuda_peer.py BENCHMARK_PROGRAM [--csv FILE --triton-configs 3 --shapes 0 1 --warm]
"""
import argparse
import csv
import statistics
import subprocess

import torch
import triton

SHAPES = [(32, 512, 9, 64), (96, 512, 12, 128), (4, 4096, 12, 128), (8, 1024, 8, 64)]


def load_rule(count):
    autotune = triton.autotune
    triton.autotune = lambda configs, **options: autotune(configs[::max(1, len(configs) // count)][:count], **options)
    from fla.ops.common import chunk_o
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    chunk_o.TRITON_ABOVE_3_7_1 = True
    return chunk_gated_delta_rule


def median_milliseconds(run, repetitions):
    times = []
    for i in range(repetitions + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(i)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


def time_peer(rule, shape, repetitions):
    """Milliseconds of forward, backward, and forward and backward."""
    batch, length, heads, dim = shape
    normal = lambda *size: torch.randn(*size, device="cuda", dtype=torch.bfloat16).requires_grad_()
    sets = []
    for _ in range(2):
        qkv = [normal(batch, length, heads, dim) for _ in range(3)]
        g = (-torch.rand(batch, length, heads, device="cuda")).requires_grad_()
        sets.append((*qkv, g, torch.rand(batch, length, heads, device="cuda").bfloat16().requires_grad_()))
    gradient = normal(batch, length, heads, dim).detach()
    call = lambda i: rule(*sets[i % 2], use_qk_l2norm_in_kernel=True)[0]

    def forward(i):
        with torch.no_grad():
            call(i)

    outputs = [call(i) for i in range(2)]
    backward = lambda i: torch.autograd.grad(outputs[i % 2], sets[i % 2], gradient, retain_graph=True)
    both = lambda i: torch.autograd.grad(call(i), sets[i % 2], gradient)
    return [median_milliseconds(run, repetitions) for run in (forward, backward, both)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built gated_delta_rule_cuda_benchmark")
    parser.add_argument("--csv")
    parser.add_argument("--triton-configs", type=int, default=3)
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="which of the script's shapes")
    parser.add_argument("--warm", action="store_true")
    a = parser.parse_args()
    rule = load_rule(a.triton_configs)
    rows = []
    for shape in (SHAPES[i] for i in a.shapes):
        peer = time_peer(rule, shape, 1 if a.warm else 15)
        if a.warm:
            continue
        output = subprocess.run([a.program, *map(str, shape)], capture_output=True, text=True, check=True).stdout
        ours = {line.split(",")[0]: float(line.split(",")[5]) for line in output.splitlines() if line.count(",") == 7
                and not line.startswith("operation")}
        count = shape[0] * shape[1] * shape[2] / 1e6
        for name, key, time in (("forward", "forward", peer[0]), ("backward", "backward", peer[1]),
                                ("forward and backward", "forward and backward", peer[2])):
            rows.append([*shape, name, f"{ours[key] / count:.3f}", f"{time / count:.3f}", f"{time / ours[key]:.2f}"])
            print(*rows[-1], sep=",", flush=True)
    if a.csv:
        with open(a.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow("sequences time heads dim operation ours_ns peer_ns peer_over_ours".split())
            writer.writerows(rows)


if __name__ == "__main__":
    main()
