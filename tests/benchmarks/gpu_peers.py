# SPDX-License-Identifier: Apache-2.0
"""Times operators of other libraries on this machine's GPU, for the scripts that put them beside ours."""
import statistics

import torch
import triton


def limit_triton_configs(count):
    """Triton kernels imported from now on choose among `count` variants each: compiling all takes minutes."""
    autotune = triton.autotune
    triton.autotune = lambda configs, **options: autotune(configs[::max(1, len(configs) // count)][:count], **options)


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


def captured(run):
    """run(0) and run(1) as CUDA graphs, so that the time to start kernels from Python is not counted."""
    graphs = [torch.cuda.CUDAGraph() for _ in range(2)]
    kept = []  # results: freed memory of a graph would be used by the next
    for i, graph in enumerate(graphs):
        run(i)
        with torch.cuda.graph(graph):
            kept.append(run(i))
    return lambda i, kept=kept: graphs[i % 2].replay()


def time_passes(call, sets, repetitions, in_graph=False):
    """Milliseconds of call(inputs) without gradients, of its backward pass, and of both. `sets`: two lists of inputs that
    want gradients, of the shape of the output in place 2; taken in turns, so that no cache flatters. `in_graph`: the first and
    the last in CUDA graphs, the backward pass by itself not at all."""
    gradient = torch.randn_like(sets[0][2])

    def forward(i):
        with torch.no_grad():
            return call(sets[i % 2])

    both = lambda i: torch.autograd.grad(call(sets[i % 2]), sets[i % 2], gradient)
    if in_graph:
        return {name: median_milliseconds(captured(run), repetitions)
                for name, run in (("forward", forward), ("forward and backward", both))}
    outputs = [call(inputs) for inputs in sets]
    backward = lambda i: torch.autograd.grad(outputs[i % 2], sets[i % 2], gradient, retain_graph=True)
    return {name: median_milliseconds(run, repetitions)
            for name, run in (("forward", forward), ("backward", backward), ("forward and backward", both))}
