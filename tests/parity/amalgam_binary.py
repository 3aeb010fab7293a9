# SPDX-License-Identifier: Apache-2.0
"""Runs the amalgam program that AMALGAM_BINARY names."""
import os
import subprocess

import h5py
import torch

ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_btl_vader_single_copy_mechanism="none",
                   OMP_NUM_THREADS="1")


def amalgam(*arguments):
    """The finished process: output as text (bytes that are no UTF-8 as surrogates), not checked."""
    command = [os.environ["AMALGAM_BINARY"], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", env=ENVIRONMENT, timeout=300)


def checked(*arguments):
    process = amalgam(*arguments)
    if process.returncode != 0:
        raise AssertionError(f"amalgam {arguments[0]} exited with {process.returncode}:\n{process.stderr}")
    return process


def result(command, dataset, model, tokens, out, time, *more):
    checked(command, "--model", model, "--tokens", tokens, "--out", out, "--sequence-length", time, *more)
    with h5py.File(out) as file:
        return torch.from_numpy(file[dataset][()])


def logits(model, tokens, out, time, *more):
    return result("logits", "logits", model, tokens, out, time, *more)


def generated(model, tokens, out, time, count):
    return result("generate", "generated", model, tokens, out, time, "--count", count)
