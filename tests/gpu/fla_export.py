#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does flash-linear-attention compute what we compute? Loads a student exported with `--to fla` into its
GatedDeltaNetForCausalLM, GLAForCausalLM or KDAForCausalLM on the GPU and compares the logits with those that `amalgam logits` wrote for the
same tokens.
Its softmax layers call the package flash_attn; where that is missing, PyTorch's attention answers the calls.

usage: fla_export.py FOLDER TOKENS.h5 PRECISION=LOGITS.h5 ... [--csv FILE]
"""
import argparse
import csv
import json
import pathlib
import sys

import triton

# Its kernels would search through dozens of variants for minutes; what they compute is the same.
autotune = triton.autotune
triton.autotune = lambda configs, **options: autotune(configs[:1], **options)

import fla.layers.attn
import fla.models
import h5py
import torch
import torch.nn.functional as F

ALLOWED = {"float32": 1e-3, "bfloat16": 2e-2}  # relative error (Frobenius norm)


def attention(q, k, v, causal, **_):
    """flash_attn_func by PyTorch; tensors are [batch, time, heads, dim]."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True).transpose(1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("tokens")
    parser.add_argument("logits", nargs="+", metavar="PRECISION=LOGITS.h5")
    parser.add_argument("--csv")
    a = parser.parse_args()
    if fla.layers.attn.flash_attn_func is None:
        fla.layers.attn.flash_attn_func = attention
    config = json.loads((pathlib.Path(a.folder) / "config.json").read_text())
    model_class = getattr(fla.models, config["architectures"][0])
    rows = [("quantity", "value", "allowed", "within")]
    for precision, file_name in (part.split("=", 1) for part in a.logits):
        with h5py.File(file_name) as file:
            ours = torch.from_numpy(file["logits"][()]).double()
        sequences, time, _ = ours.shape
        with h5py.File(a.tokens) as file:
            tokens = torch.from_numpy(file["tokens"][: sequences * time].astype("int64")).view(sequences, time)
        model = model_class.from_pretrained(a.folder, dtype=getattr(torch, precision)).cuda().eval()
        with torch.no_grad():
            theirs = model(tokens.cuda(), use_cache=False).logits.double().cpu()
        error = float((theirs - ours).norm() / ours.norm())
        rows.append((f"fla {fla.__version__} logits {precision}: relative error", f"{error:.3g}", f"{ALLOWED[precision]:.3g}", "yes" if error <= ALLOWED[precision] else "NO"))
        print(",".join(rows[-1]), flush=True)
    if a.csv:
        with open(a.csv, "w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    sys.exit(any(row[3] == "NO" for row in rows))


if __name__ == "__main__":
    main()
