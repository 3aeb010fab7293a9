# SPDX-License-Identifier: Apache-2.0
"""Random edits of config.json and of safetensors headers of tiny random models: does `amalgam logits` take the same folders as
transformers, with the same numbers, and refuse the others in words?

    AMALGAM_BINARY=build/cpu/src/amalgam python tests/parity/fuzz.py --count 2000 --seed 1     # about 20 minutes on two cores
    AMALGAM_BINARY=... python tests/parity/fuzz.py --seed 1 --only 417                          # one of them, with what was said

Every edit depends on seed and number only. Outcomes:
    equal              both take it, logits agree to 1e-4 of the largest
    both refuse        (transformers also where it would draw missing weights at random, or comes to no end)
    we refuse          transformers takes it; allowed, as long as the message names the file
  and the faults:
    different          both take it, logits differ
    we accept          transformers refuses
    crash              a signal, an exit status that no bad folder has, stack frames, no message, one that is no UTF-8
"""
import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

import teachers
from amalgam_binary import amalgam

TIME, TOLERANCE = 48, 1e-4
PATIENCE = 20.0  # s of computing: a config with 2^63 layers keeps transformers busy for ever
FAULTS = ("different", "we accept", "crash")
FAMILIES = ("llama", "qwen2", "qwen3")
SIZES = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=40)

NUMBERS = [0, 1, 2, 3, 4, 8, 16, 24, 32, 40, 64, -1, 0.0, 0.5, 1.0, 4.0, 1e-6, 1e-12, 1e6, 10 ** 12, 2 ** 63, 1e300]
ODDITIES = [None, True, False, "yes", "", [], {}, [1], {"a": 1}, "4"]
LAYER_TYPES = ["full_attention", "full_attention", "sliding_attention", "attention", "linear_attention", "chunked_attention", "nonsense"]
ROPE_TYPES = ["default", "default", "linear", "linear", "dynamic", "dynamic", "llama3", "llama3", "yarn", "yarn", "yarn", "yarn", "longrope",
              "proportional", "mrope", None, 3]
ROPE_VALUES = dict(factor=[1, 2.0, 4.0, 0.5, 0, None, "2"], original_max_position_embeddings=[8, 16, 32.0, 20.5, 0, None, -4, 64],
                   rope_theta=[100.0, 10000, 1e6, 1, 0, None, -3.0, "a"], low_freq_factor=[1.0, 2, 0, None], high_freq_factor=[4.0, 8, 1, None],
                   beta_fast=[32, 16.0, 0, None, 1], beta_slow=[1, 2.0, 0, None, 64], attention_factor=[1.3, 0, 0.0, None, -1.0, 1],
                   mscale=[1.0, 0, 0.7, None, -1.0], mscale_all_dim=[0.5, 0, None, 1.0], truncate=[True, False, None, 0],
                   partial_rotary_factor=[1.0, 0.5, None, 1], type=["linear", "yarn", "default", None], unknown=[3])
KEYS = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
        "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache", "tie_word_embeddings", "pad_token_id", "bos_token_id",
        "eos_token_id", "attention_bias", "mlp_bias", "head_dim", "use_sliding_window", "sliding_window", "max_window_layers", "rope_theta",
        "original_max_position_embeddings", "partial_rotary_factor", "attention_dropout", "is_causal", "per_layer_config",
        "quantization_config", "dtype", "torch_dtype", "pretraining_tp", "architectures", "model_type", "mlp_layer_types", "some_other_key"]
FITTING = dict(num_key_value_heads=[1, 2, 4, None], head_dim=[8, None, 16, 4], hidden_act=["silu", "swish", "gelu", "relu", "nonsense"],
               rms_norm_eps=[1e-5, 1e-6, 1e-12, 0.0], max_position_embeddings=[8, 16, 40, 64, 4096], sliding_window=[4, 8, 16, 40, 100, None],
               use_sliding_window=[True, False, True], max_window_layers=[0, 1, 2, 3, 28], tie_word_embeddings=[True, False],
               attention_bias=[True, False], mlp_bias=[True, False], is_causal=[True, False, None], pad_token_id=[0, 5, 300, 301, 302, -1, -400],
               original_max_position_embeddings=[8, 16, None, 64], dtype=["float32", "bfloat16", "float16", "auto", "int8", "fp16"],
               torch_dtype=["float32", "bfloat16", "int8", None], model_type=["llama", "qwen2", "qwen3", "mistral"],
               quantization_config=[{"quant_method": "gptq", "bits": 4}, None, {}], vocab_size=[301, 300, 302], eos_token_id=[2, [2, 3], [], None])


def rope_parameters(rng):
    """Of one type, with what the type needs or something else."""
    kind = rng.choice(ROPE_TYPES)
    rope = {rng.choice(["rope_type", "rope_type", "type"]): kind}
    needed = dict(linear=["factor"], dynamic=["factor"], yarn=["factor", "original_max_position_embeddings"],
                  llama3=["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]).get(kind, [])
    fitting = dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
    for key in needed:
        if rng.random() < 0.95:
            rope[key] = fitting[key]
    for key in rng.sample(sorted(ROPE_VALUES), rng.choice([0, 0, 0, 1, 1, 2])):
        rope[key] = rng.choice(ROPE_VALUES[key])
    if rng.random() < 0.08:
        rope = {rng.choice(["full_attention", "sliding_attention"]): rope}
    return rope


def edit_config(rng, config):
    what = rng.random()
    if what < 0.35:
        config[rng.choice(["rope_parameters", "rope_scaling"])] = rope_parameters(rng)
        if rng.random() < 0.3:
            config["rope_theta"] = rng.choice(ROPE_VALUES["rope_theta"])
    elif what < 0.45:
        length = rng.choice([3, 3, 3, 3, 2, 4])
        config["layer_types"] = [rng.choice(LAYER_TYPES[:rng.choice([2, 3, 7])]) for _ in range(length)]
        config["use_sliding_window"] = rng.choice([True, False])
        config["sliding_window"] = rng.choice([4, 16, None])
    elif what < 0.55:
        config.pop(rng.choice(sorted(config)))
    else:
        key = rng.choice(KEYS)
        pool = FITTING.get(key, NUMBERS + ODDITIES) if rng.random() < 0.85 else NUMBERS + ODDITIES
        config[key] = copy.deepcopy(rng.choice(pool))


def read_tensors(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def write_tensors(path, header, data):
    source = header if isinstance(header, bytes) else json.dumps(header).encode()
    source += b" " * (-len(source) % 8)
    path.write_bytes(struct.pack("<Q", len(source)) + source + data)


def add_tensor(header, data, name, like, values):
    header[name] = dict(copy.deepcopy(header[like]), data_offsets=[len(data), len(data) + len(values)])
    return data + values


def edit_tensors(rng, path):
    header, data = read_tensors(path)
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    begin, end = entry["data_offsets"]
    kind = rng.choice(["prefix", "prefix one", "head", "drop", "extra", "bias", "buffer", "integers", "dtype", "shape", "transpose", "offsets", "truncate",
                       "longer", "metadata", "flip", "flip data", "rename", "half", "header length"])
    if kind == "prefix":
        header = {key.removeprefix("model."): value for key, value in header.items()}
    elif kind == "prefix one":
        header = {(key.removeprefix("model.") if key == name else key): value for key, value in header.items()}
    elif kind == "head":
        values = np.random.default_rng(rng.randrange(1 << 30)).standard_normal(301 * SIZES["hidden_size"]).astype(np.float32).tobytes()
        embedding = header["model.embed_tokens.weight"]["data_offsets"]
        if rng.random() < 0.5:
            values = data[embedding[0]:embedding[1]]
        if "lm_head.weight" not in header:
            data = add_tensor(header, data, "lm_head.weight", "model.embed_tokens.weight", values)
        else:
            first, last = header["lm_head.weight"]["data_offsets"]
            data = data[:first] + values + data[last:]
    elif kind == "drop":
        header.pop(name)
        for other in header.values():
            if "data_offsets" in other and other["data_offsets"][0] >= end:
                other["data_offsets"] = [at - (end - begin) for at in other["data_offsets"]]
        data = data[:begin] + data[end:]
    elif kind in ("extra", "bias"):
        other = "model.layers.1.self_attn.o_proj.bias" if kind == "bias" else rng.choice(["extra.weight", "model.layers.9.mlp.up_proj.weight"])
        if other not in header:
            data = add_tensor(header, data, other, "model.norm.weight", bytes(4 * SIZES["hidden_size"]))
    elif kind == "buffer":
        data = add_tensor(header, data, "model.layers.0.self_attn.rotary_emb.inv_freq", name, data[begin:end])
    elif kind == "integers":
        header["counts"] = dict(dtype=rng.choice(["U8", "I8", "BOOL", "F8_E4M3"]), shape=[8], data_offsets=[len(data), len(data) + 8])
        data += bytes(8)
    elif kind == "dtype":
        entry["dtype"] = rng.choice(["I32", "U32", "F32", "F16", "F64", "X32", "BF16", None, 4])
    elif kind == "shape":
        entry["shape"] = rng.choice([[], [end - begin], [(end - begin) // 4], entry["shape"] + [1], [-1], entry["shape"][::-1], [2 ** 40, 2 ** 40], "x", None])
    elif kind == "transpose":
        entry["shape"] = entry["shape"][::-1]
    elif kind == "offsets":
        entry["data_offsets"] = rng.choice([[end, begin], [begin + 4, end + 4], [begin, end + 4], [0, 0], [-4, end], [begin], "x", [begin, 2 ** 64 - 1]])
    elif kind == "truncate":
        data = data[:rng.randrange(len(data))]
    elif kind == "longer":
        data += bytes(rng.choice([1, 4, 8, 100]))
    elif kind == "metadata":
        header["__metadata__"] = rng.choice([{}, {"format": "pt", "a": "b"}, {"format": "tf"}])
    elif kind == "rename":
        header["model.nothing" if rng.random() < 0.5 else name + "x"] = header.pop(name)
    elif kind == "half":
        values = np.frombuffer(data[begin:end], np.float32).astype(np.float16).tobytes()
        header.pop(name)
        for other in header.values():
            if "data_offsets" in other and other["data_offsets"][0] >= end:
                other["data_offsets"] = [at - (end - begin) for at in other["data_offsets"]]
        data = data[:begin] + data[end:]
        header[name] = dict(dtype="F16", shape=entry["shape"], data_offsets=[len(data), len(data) + len(values)])
        data += values
    if kind == "flip data":  # one bit, in the exponent more often than not
        at = rng.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1:]
    source = json.dumps(header).encode()
    if kind == "flip":
        at = rng.randrange(len(source))
        source = source[:at] + bytes([source[at] ^ (1 << rng.randrange(8))]) + source[at + 1:]
    write_tensors(path, source, data)
    if kind == "header length":
        raw = path.read_bytes()
        path.write_bytes(struct.pack("<Q", rng.choice([0, 1, len(raw), 2 ** 63, len(source) - 3])) + raw[8:])
    return f"{kind} {name}"


def no_end(signal_number, frame):
    raise RuntimeError(f"no end after {PATIENCE:.0f} s of computing")


class Fuzzer:
    def __init__(self, folder, seed):
        self.folder, self.seed = Path(folder), seed
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        signal.signal(signal.SIGVTALRM, no_end)
        self.tokens = teachers.write_tokens(self.folder / "tokens.h5", 1, TIME)
        for family in FAMILIES:
            for tied in (False, True):
                more = dict(head_dim=8) if family == "qwen3" else {}
                model = teachers.make(family, **SIZES, **more, tie_word_embeddings=tied)
                teachers.save(model, self.folder / f"{family}-{tied}")

    def edit(self, number):
        """Folder and description of one edit."""
        rng = random.Random(self.seed * 1_000_003 + number)
        base = f"{rng.choice(FAMILIES)}-{rng.random() < 0.4}"
        folder = self.folder / f"edit-{number}"
        shutil.copytree(self.folder / base, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        before, said = dict(config), [base]
        if rng.random() < 0.75:
            for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
                edit_config(rng, config)
            path.write_text(json.dumps(config))
            said += [f"{key}: {json.dumps(config[key])}" if key in config else f"no {key}" for key in sorted({*before, *config})
                     if config.get(key, "absent") != before.get(key, "absent") or (key in config) != (key in before)]
        if len(said) == 1 or rng.random() < 0.25:
            said.append(edit_tensors(rng, folder / "model.safetensors"))
        return folder, "; ".join(said)

    def theirs(self, folder):
        """Logits, or why there are none."""
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
                model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
                if info["missing_keys"] or info["mismatched_keys"]:
                    return f"draws at random: {sorted(info['missing_keys'])[:2]}"
                return model.eval()(self.tokens, use_cache=False).logits
        except Exception as error:  # whatever transformers says
            return f"{type(error).__name__}: {str(error)[:150]}"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    def ours(self, folder):
        """Exit status, what was said, logits if there are any."""
        out = folder / "logits.h5"
        process = amalgam("logits", "--model", folder, "--tokens", self.folder / "tokens.h5", "--out", out, "--sequence-length", TIME)
        if process.returncode != 0:
            return process.returncode, process.stderr, None
        with h5py.File(out) as file:
            return 0, process.stderr, torch.from_numpy(file["logits"][()])

    @staticmethod
    def outcome(folder, ours, theirs):
        status, said, logits = ours
        refused = isinstance(theirs, str)
        if status != 0:
            is_text = not any("\udc80" <= letter <= "\udcff" for letter in said)
            in_words = is_text and status in (2, 3) and str(folder) in said and "frame #" not in said and "terminate called" not in said
            return "crash" if not in_words else "both refuse" if refused else "we refuse"
        if refused:
            return "we accept"
        if not theirs.isfinite().all():
            return "different" if logits.isfinite().all() else "equal"
        return "equal" if logits.shape == theirs.shape and (logits - theirs).abs().max() <= TOLERANCE * theirs.abs().max() else "different"

    def run(self, numbers, report=print):
        """Counts by outcome; faults are told as they come."""
        counts = collections.Counter()
        with ThreadPoolExecutor(2) as pool:
            waiting = collections.deque()
            numbers = iter(numbers)
            while True:
                for number in numbers:
                    folder, edits = self.edit(number)
                    waiting.append((number, folder, edits, pool.submit(self.ours, folder)))
                    if len(waiting) > 3:
                        break
                if not waiting:
                    return counts
                number, folder, edits, process = waiting.popleft()
                theirs, ours = self.theirs(folder), process.result()
                outcome = self.outcome(folder, ours, theirs)
                counts[outcome] += 1
                if outcome in FAULTS or report is not print:
                    report(f"{number}: {outcome}: {edits}\n    we: {ours[0]} {ours[1].strip()[-300:]}\n    transformers: "
                           f"{theirs if isinstance(theirs, str) else 'takes it'}")
                shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description="Random edits of model folders, compared with transformers.")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this edit alone, with what was said")
    options = parser.parse_args()
    if "AMALGAM_BINARY" not in os.environ:
        sys.exit("AMALGAM_BINARY is not set (it names the program to be tried)")
    sys.stdout.reconfigure(errors="backslashreplace")
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(folder, options.seed)
        if options.only is not None:
            counts = fuzzer.run([options.only], report=lambda text: print(text, flush=True))
        else:
            counts = fuzzer.run(range(options.count))
    print(f"seed {options.seed}: {sum(counts.values())} edits: " + ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items())))
    return 1 if any(counts[fault] for fault in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
