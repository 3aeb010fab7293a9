# SPDX-License-Identifier: Apache-2.0
"""Times transformers' generation beside generation_benchmark, with the same shapes, random weights, type and device.

For each case: milliseconds to the first token of one sequence, and of a token for a batch that has seen so many tokens. The
peer's cache is filled with random keys and values rather than by a prompt, so that long contexts cost no prefill; --cache
static uses transformers' preallocated cache and, with --compile, torch.compile as its documentation recommends. Only teachers
(softmax layers everywhere) have a peer. Prints CSV: side,shape,layout,batch,context,first_token_ms,token_ms,tokens_s and the
processor time of a token, token_processor_ms, which says most of a busy CPU. llama.cpp's: generation_llama_peer.cpp.

usage: generation_peer.py [PROGRAM] --case SHAPE:LAYOUT:BATCH:CONTEXT ... [--device cuda|cpu --type bf16|f32 --threads N --steps 30
           --cache dynamic|static --compile]
With PROGRAM (build/cuda/tests/benchmarks/generation_benchmark, or a launcher and it) both take part, one after the other.
"""
import argparse
import shlex
import statistics
import subprocess
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, StaticCache

SHAPES = {
    "smollm2-135m": (LlamaConfig, LlamaForCausalLM, dict(
        num_hidden_layers=30, vocab_size=49152, hidden_size=576, intermediate_size=1536, num_attention_heads=9,
        num_key_value_heads=3, head_dim=64, rms_norm_eps=1e-5, tie_word_embeddings=True)),
    "qwen2.5-1.5b": (Qwen2Config, Qwen2ForCausalLM, dict(
        num_hidden_layers=28, vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_attention_heads=12,
        num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True)),
}


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device, work):
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def filled_cache(config, model, batch, context, capacity, a, dtype):
    heads = config.num_key_value_heads
    dim = config.hidden_size // config.num_attention_heads
    if a.cache == "static":
        cache = StaticCache(config=config, max_cache_len=capacity)
    else:
        cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.randn(batch, heads, context, dim, device=a.device, dtype=dtype) for _ in range(2))
        cache.update(keys, values, layer, {"cache_position": torch.arange(context, device=a.device)})
    return cache


@torch.no_grad()
def time_peer(case, a):
    shape, layout, batch, context = case.split(":")
    batch, context = int(batch), int(context)
    if layout != "teacher" or shape not in SHAPES:
        return None
    dtype = torch.bfloat16 if a.type == "bf16" else torch.float32
    config_class, model_class, sizes = SHAPES[shape]
    config = config_class(max_position_embeddings=context + a.steps + 64, **sizes)
    with torch.device(a.device):
        model = model_class(config).to(dtype).eval()
    prompt = torch.randint(config.vocab_size, (1, context), device=a.device)
    first = [timed(a.device, lambda: model(prompt, logits_to_keep=1).logits.argmax(-1).cpu()) for _ in range(3)]
    forward = torch.compile(model, mode="reduce-overhead", fullgraph=True) if a.compile else model
    token = torch.zeros(batch, 1, dtype=torch.long, device=a.device)
    repetitions, processor = [], []
    for _ in range(3):
        cache = filled_cache(config, model, batch, context, context + a.steps + 8, a, dtype)
        position = context

        def steps(count):
            nonlocal position, token
            for _ in range(count):
                out = forward(token, past_key_values=cache, cache_position=torch.tensor([position], device=a.device), use_cache=True)
                token = out.logits[:, -1:].argmax(-1)
                position += 1

        steps(4)
        used = time.process_time()
        repetitions.append(timed(a.device, lambda: steps(a.steps)) / a.steps)
        processor.append((time.process_time() - used) / a.steps)
        del cache
    token = statistics.median(repetitions)
    return 1e3 * statistics.median(first), 1e3 * token, batch / token, 1e3 * statistics.median(processor)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?")
    parser.add_argument("--case", action="append", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--type", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--cache", default="dynamic", choices=["dynamic", "static"])
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    print("side,shape,layout,batch,context,first_token_ms,token_ms,tokens_s,token_processor_ms", flush=True)
    for case in a.case:
        names = case.replace(":", ",")
        if a.program:
            command = shlex.split(a.program) + ["--device", a.device, "--type", a.type, "--steps", str(a.steps), case]
            if a.threads:
                command += ["--threads", str(a.threads)]
            row = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split(",")
            print(f"amalgam,{names},{row[7]},{row[8]},{row[12]},{row[13]}", flush=True)
        found = time_peer(case, a)
        if found:
            print(f"transformers,{names},{found[0]:.3f},{found[1]:.4f},{found[2]:.0f},{found[3]:.4f}", flush=True)
        if a.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
