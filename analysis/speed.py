#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows what `amalgam measure` wrote: time to the first token, tokens per second and memory against context length.

    python analysis/speed.py speed.h5 [--output speed.html] [--names teacher,student]

Prints the table as CSV; with --output also a page with the plots.
"""

import argparse
import csv
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from page import document, figure
from plots import DASHES, RUNS, new_figure, plain, short_number, to_svg
from result_files import UnreadableFile, read_with, text

FILETYPE = "amalgam speed"


@dataclass
class Speed:
    names: list
    contexts: np.ndarray
    batches: np.ndarray
    weight_bytes: np.ndarray  # [model]
    cache_bytes: np.ndarray   # [model, context], of one sequence
    first_token: np.ndarray   # [model, context], s
    step: np.ndarray          # [model, context, batch], s
    step_floor: np.ndarray    # likewise
    device: str
    precision: str

    @property
    def tokens_per_second(self):
        return self.batches / self.step

    @property
    def memory(self):
        """Weights and caches, [model, context, batch], bytes."""
        return self.weight_bytes[:, None, None] + self.cache_bytes[:, :, None] * self.batches


def read_speed(path):
    return read_with(Path(path), FILETYPE, lambda file: Speed(
        [text(name) for name in file["model"][:]], file["context"][:], file["batch"][:], file["weight_bytes"][:],
        file["cache_bytes"][:], file["first_token"][:], file["step"][:], file["step_floor"][:], text(file.attrs["device"]),
        text(file.attrs["precision"])))


def rows(speed):
    memory = speed.memory
    for m, name in enumerate(speed.names):
        for c, context in enumerate(speed.contexts):
            for b, batch in enumerate(speed.batches):
                step = speed.step[m, c, b]
                yield (name, context, batch, f"{1e3 * speed.first_token[m, c]:.4g}", f"{1e3 * step:.4g}", f"{batch / step:.5g}",
                       f"{speed.step_floor[m, c, b] / step:.3f}", f"{memory[m, c, b] / 1e9:.4g}")


TITLES = ("model", "context", "batch", "first_token_ms", "step_ms", "tokens_per_second", "share_of_bandwidth", "memory_gb")


def against_context(speed, values, label, by_batch):
    """values: [model, context] or, `by_batch`, [model, context, batch]."""
    if not np.isfinite(values).any():
        return None
    shape, axes = new_figure()
    for m, name in enumerate(speed.names):
        for b, batch in enumerate(speed.batches if by_batch else [None]):
            line = values[m, :, b] if by_batch else values[m]
            axes.plot(speed.contexts, line, DASHES[b % len(DASHES)], color=RUNS[m % len(RUNS)], marker="o", markersize=3,
                      label=plain(name) + (f", {batch} at a time" if by_batch else ""))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(speed.contexts, [short_number(context) for context in speed.contexts], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tokens seen")
    axes.set_ylabel(label)
    axes.legend()
    return to_svg(shape, label)


def page(speed):
    figures = (
        figure(against_context(speed, 1e3 * speed.first_token, "ms to the first token", False), "Time to the first token",
               "One prompt, from its first token in to the first new one out."),
        figure(against_context(speed, speed.tokens_per_second, "tokens/s", True), "Generation",
               "New tokens of all sequences together."),
        figure(against_context(speed, speed.memory / 1e9, "GB", True), "Memory", "Weights, keys and values, and states."),
    )
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return document("Speed", style, f"<h1>Speed</h1><p>{escape(speed.device)}, {escape(speed.precision)}</p>{''.join(figures)}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Show what amalgam measure wrote.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, metavar="HTML")
    parser.add_argument("--names", metavar="A,B", help="instead of the models' paths")
    options = parser.parse_args(arguments)
    try:
        speed = read_speed(options.file)
    except (UnreadableFile, OSError) as error:
        print(f"speed.py: error: {error}", file=sys.stderr)
        return 1
    if options.names:
        names = options.names.split(",")
        if len(names) != len(speed.names):
            parser.error(f"--names has {len(names)} names but there are {len(speed.names)} models")
        speed.names = names
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(TITLES)
    writer.writerows(rows(speed))
    if options.output:
        options.output.write_text(page(speed), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
