# SPDX-License-Identifier: Apache-2.0
"""Times the gated linear attention of flash-linear-attention (fla) on this machine's GPU beside
gated_linear_attention_cuda_benchmark, in one run.

Both get bf16 q, k, v and gates; ours works the log decays out from raw gates, fla is given them. Medians by CUDA events
over inputs in different memory, nanoseconds per token and head. fla's Triton kernels choose among N variants each.
Before it is timed, its output is compared with the recurrence in fp32. --warm only compiles its kernels.

usage: gated_linear_attention_cuda_peer.py BENCHMARK_PROGRAM [--csv FILE --triton-configs 3 --warm]
"""
import argparse
import csv
import subprocess

import torch

from gpu_peers import limit_triton_configs, time_passes

# sequences, time, heads, dim
SHAPES = [(8, 1024, 8, 64), (32, 512, 9, 64), (4, 4096, 12, 128), (96, 512, 12, 128), (2, 8192, 32, 128)]


def random_inputs(shape):
    """q, k, v and log decays, [sequences, time, heads, dim]."""
    qkv = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    return [*qkv, torch.nn.functional.logsigmoid(torch.randn(shape, device="cuda", dtype=torch.bfloat16)) / 16]


def recurrence(q, k, v, g):
    q, k, v, g = (x.float() for x in (q, k, v, g))
    state, outputs = torch.zeros(*q[:, 0].shape, v.shape[-1], device="cuda"), []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp().unsqueeze(-1) + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        outputs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2) * q.shape[-1] ** -0.5)
    return torch.stack(outputs, 1)


def time_ours(program, shape):
    output = subprocess.run([program, *map(str, shape)], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in output.splitlines() if line.count(",") == 7 and not line.startswith("operation")]
    return {row[0]: float(row[5]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built gated_linear_attention_cuda_benchmark")
    parser.add_argument("--csv")
    parser.add_argument("--triton-configs", type=int, default=3)
    parser.add_argument("--warm", action="store_true")
    a = parser.parse_args()
    limit_triton_configs(a.triton_configs)
    from fla.ops.gla import chunk_gla
    for dim in (64, 128):
        inputs = random_inputs((2, 300, 2, dim))
        with torch.no_grad():
            x, y = chunk_gla(*inputs)[0].float(), recurrence(*inputs)
        print(f"# fla's output against the recurrence, dim {dim}: {((x - y).square().mean() / y.square().mean()).sqrt():.4f}")
    rows = []
    for shape in SHAPES:
        sets = [[x.requires_grad_() for x in random_inputs(shape)] for _ in range(2)]
        peer = time_passes(lambda inputs: chunk_gla(*inputs)[0], sets, 1 if a.warm else 15)
        if a.warm:
            continue
        ours = time_ours(a.program, shape)
        count = shape[0] * shape[1] * shape[2] / 1e6
        for operation, time in peer.items():
            rows.append([*shape, operation, "fla", f"{ours[operation] / count:.3f}", f"{time / count:.3f}",
                         f"{time / ours[operation]:.2f}"])
            print(*rows[-1], sep=",", flush=True)
    if a.csv:
        with open(a.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow("sequences time heads dim operation peer ours_ns peer_ns peer_over_ours".split())
            writer.writerows(rows)


if __name__ == "__main__":
    main()
