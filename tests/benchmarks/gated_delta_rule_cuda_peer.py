# SPDX-License-Identifier: Apache-2.0
"""Times the gated delta rule of other libraries on this machine's GPU beside gated_delta_rule_cuda_benchmark, in one run.

Peers: flash-linear-attention (fla) and, where it is installed, FlashQLA (flash_qla, head dimension 128 only). All get bf16
q, k and v and normalise q and k inside; ours also computes the gates from their raw inputs, the peers are given them.
Medians by CUDA events over inputs in different memory, nanoseconds per token and head; decoding: 20 steps in a CUDA graph
on both sides. Packed: the lengths of the benchmark program.
fla's Triton kernels choose among N variants each (--triton-configs, fewer than it would try, to save the time of compiling
them); its backward refuses Hopper GPUs with Triton 3.4 to 3.7.0, whose gradients are wrong there (its issue 640), and is
timed here all the same, since only its time matters. --warm only compiles the peers' kernels. Before FlashQLA is timed,
its output is compared with fla's.

usage: gated_delta_rule_cuda_peer.py BENCHMARK_PROGRAM [--csv FILE --triton-configs 3 --shapes 0 1 --warm]
"""
import argparse
import csv
import importlib.util
import os
import subprocess

import torch

from gpu_peers import limit_triton_configs, median_milliseconds, time_passes

# sequences, time, heads, dim, kind
SHAPES = [(32, 512, 9, 64, ""), (96, 512, 12, 128, ""), (4, 4096, 12, 128, ""), (8, 1024, 8, 64, ""),
          (16, 1024, 12, 128, "packed"), (32, 512, 9, 64, "packed"),
          (1, 1, 16, 128, "decode"), (32, 1, 16, 128, "decode"), (256, 1, 16, 128, "decode"), (256, 1, 16, 64, "decode")]
DECODE_STEPS = 20


def load_fla(count):
    os.environ["FLA_FLASH_QLA"] = "0"  # else fla calls FlashQLA where that is installed
    limit_triton_configs(count)
    from fla.ops.common import chunk_o
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
    chunk_o.TRITON_ABOVE_3_7_1 = True
    return chunk_gated_delta_rule, fused_recurrent_gated_delta_rule


def rising_starts(sequences, time):
    """As in the benchmark program."""
    return [i * time // 4 + 3 * time * i * (i - 1) // (4 * (sequences - 1)) for i in range(sequences + 1)]


def random_inputs(shape):
    """q, k, v, log decays, beta; and what else the peers are to be called with."""
    sequences, time, heads, dim, kind = shape
    batch, length, options = sequences, time, {"use_qk_l2norm_in_kernel": True}
    if kind == "packed":
        batch, length = 1, sequences * time
        options["cu_seqlens"] = torch.tensor(rising_starts(sequences, time), device="cuda")
    qkv = [torch.randn(batch, length, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    decays = -torch.rand(batch, length, heads, device="cuda")
    return [*qkv, decays, torch.rand(batch, length, heads, device="cuda").bfloat16()], options


def time_training(rule, shape, repetitions):
    """Milliseconds by operation."""
    sets = []
    for _ in range(2):
        inputs, options = random_inputs(shape)
        sets.append([x.requires_grad_() for x in inputs])
    return time_passes(lambda inputs: rule(*inputs, **options)[0], sets, repetitions)


def time_decoding(rule, shape, repetitions):
    sequences, _, heads, dim, _ = shape
    inputs, options = random_inputs(shape)
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


def relative_difference(rule, other, shape):
    """RMS of the difference of the outputs over RMS of the output."""
    inputs, options = random_inputs(shape)
    with torch.no_grad():
        x, y = (r(*inputs, **options)[0].float() for r in (rule, other))
    return ((x - y).square().mean() / y.square().mean()).sqrt().item()


def time_ours(program, shape):
    arguments = [*map(str, shape[:4]), *([shape[4]] if shape[4] else [])]
    output = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in output.splitlines() if line.count(",") == 7 and not line.startswith("operation")]
    return {row[0].removesuffix(" packed"): float(row[5]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built gated_delta_rule_cuda_benchmark")
    parser.add_argument("--csv")
    parser.add_argument("--triton-configs", type=int, default=3)
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="which of the script's shapes")
    parser.add_argument("--warm", action="store_true")
    a = parser.parse_args()
    fla_chunk, fla_recurrent = load_fla(a.triton_configs)
    flash_qla = None
    if importlib.util.find_spec("flash_qla"):
        from flash_qla import chunk_gated_delta_rule as flash_qla
    rows = []
    for shape in (SHAPES[i] for i in a.shapes):
        repetitions = 1 if a.warm else 15
        if shape[4] == "decode":
            peers = {"fla": time_decoding(fla_recurrent, shape, repetitions)}
        else:
            peers = {"fla": time_training(fla_chunk, shape, repetitions)}
            if flash_qla and shape[3] == 128:
                try:
                    print("# FlashQLA's output against fla's:", relative_difference(flash_qla, fla_chunk, shape), flush=True)
                    peers["FlashQLA"] = time_training(flash_qla, shape, repetitions)
                except Exception as error:  # a library that refuses a shape or this machine: the others are still timed
                    print(f"# FlashQLA on {shape}: {type(error).__name__}: {error}", flush=True)
        if a.warm:
            continue
        ours = time_ours(a.program, shape)
        count = shape[0] * shape[1] * shape[2] / 1e6
        for peer, times in peers.items():
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
