# SPDX-License-Identifier: Apache-2.0
"""Compares the gated delta rule kernel with transformers' torch_chunk_gated_delta_rule on this machine's CPU, or that of
Kimi Delta Attention with its chunk_kimi_delta_attention.

The two take turns: in every round the kernel's benchmark program runs once and the peer runs once (forward, then forward
and backward), so that both see the same machine. Both get bf16 activations, normalise q and k inside, and use the same
number of threads; the kernel also computes the gates from their raw inputs, which the peer is given ready made. Printed
are the medians and the fastest rounds, in nanoseconds per token and head, and their ratios. A machine with other work on
its cores slows the peer's many short parallel sections far more than the kernel's single one: compare on a quiet one.

usage: gated_delta_rule_peer.py BENCHMARK_PROGRAM [--rule gdn|kda --batch 4 --time 2048 --heads 9 --dim 64 --threads 2 --rounds 7]
"""
import argparse
import statistics
import subprocess
import time

import torch
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built gated_delta_rule_benchmark")
    parser.add_argument("--rule", choices=["gdn", "kda"], default="gdn")
    for name, standard in dict(batch=4, time=2048, heads=9, dim=64, threads=2, rounds=7).items():
        parser.add_argument(f"--{name}", type=int, default=standard)
    parser.add_argument("--variant", default="", help="kernel variant, such as avx2; the fastest supported if not given")
    return parser.parse_args()


def run_kernel(arguments):
    """Nanoseconds per token and head of forward, and of forward and backward."""
    a = arguments
    command = [a.program, *map(str, (a.batch, a.time, a.heads, a.dim)), "bf16", str(a.threads), "3", "plain", a.rule]
    output = subprocess.run(command + ([a.variant] if a.variant else []), capture_output=True, text=True, check=True)
    name, forward, both, _ = output.stdout.strip().splitlines()[-1].split()
    return name, float(forward), float(both)


class Peer:
    def __init__(self, arguments):
        a = arguments
        torch.manual_seed(0)
        shape = (a.batch, a.time, a.heads)
        normal = lambda *size: torch.randn(*size).bfloat16().requires_grad_()
        self.q, self.k, self.v = (normal(*shape, a.dim) for _ in range(3))
        self.rule = chunk_kimi_delta_attention if a.rule == "kda" else torch_chunk_gated_delta_rule
        self.g = (-torch.rand(*shape, a.dim) if a.rule == "kda" else -torch.rand(*shape)).requires_grad_()
        self.beta = torch.rand(*shape).bfloat16().requires_grad_()
        self.gradient = torch.randn(*shape, a.dim).bfloat16()
        self.nanoseconds = 1e9 / (a.batch * a.time * a.heads)

    def call(self):
        rest = dict(initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=True)
        return self.rule(self.q, self.k, self.v, self.g, self.beta, **rest)[0]

    def run(self):
        start = time.perf_counter()
        with torch.no_grad():
            self.call()
        forward = time.perf_counter()
        self.call().backward(self.gradient)
        end = time.perf_counter()
        return (forward - start) * self.nanoseconds, (end - forward) * self.nanoseconds


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    peer = Peer(arguments)
    peer.run()
    rounds = []
    for _ in range(arguments.rounds):
        name, *kernel = run_kernel(arguments)
        rounds.append((*kernel, *peer.run()))
    print(f"kernel variant {name}, {arguments.threads} threads, ns per token and head")
    for label, choose in (("median", statistics.median), ("fastest", min)):
        forward, both, peer_forward, peer_both = map(choose, zip(*rounds))
        print(f"{label:8} forward {forward:8.1f} peer {peer_forward:9.1f} ratio {peer_forward / forward:5.1f}   "
              f"forward+backward {both:8.1f} peer {peer_both:9.1f} ratio {peer_both / both:5.1f}")


if __name__ == "__main__":
    main()
