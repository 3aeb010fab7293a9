# SPDX-License-Identifier: Apache-2.0
"""Whether two run folders hold the same results, bit for bit."""

import pathlib

import h5py
import numpy

TIMES_AND_PLACES = {"seconds", "rank"}  # of scores.h5: of the machine, not of the model


def datasets(path):
    """Name -> bytes of every dataset of an HDF5 file."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and name not in TIMES_AND_PLACES:
            value = item[()]
            found[name] = value.tobytes() if isinstance(value, (numpy.ndarray, numpy.generic)) else value

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def result_files(run):
    """Relative paths of what a finished run leaves: results, finished checkpoints, exported folders."""
    run = pathlib.Path(run)
    found = [p for pattern in ("*.h5", "checkpoints/*.h5", "student*/*") for p in run.glob(pattern) if p.is_file()]
    return sorted(str(p.relative_to(run)) for p in found)


def differences(expected, found):
    """What is not the same, and what should not be there; empty if all is well."""
    expected, found = pathlib.Path(expected), pathlib.Path(found)
    names, there = result_files(expected), result_files(found)
    wrong = [f"{name}: missing" for name in sorted(set(names) - set(there))]
    wrong += [f"{name}: not in the undisturbed run" for name in sorted(set(there) - set(names))]
    wrong += [f"{path}: left over" for path in sorted(found.rglob("*.tmp*"))]
    for name in sorted(set(names) & set(there)):
        if not name.endswith(".h5"):
            if (expected / name).read_bytes() != (found / name).read_bytes():
                wrong.append(f"{name}: other bytes")
            continue
        try:
            a, b = datasets(expected / name), datasets(found / name)
        except OSError as error:
            wrong.append(f"{name}: {error}")
            continue
        wrong += [f"{name}: {key}" for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)]
    return wrong


def flip_bit(path, dataset=None):
    """Flips a bit in the middle of a file, or of the stored bytes of one of its datasets."""
    path = pathlib.Path(path)
    place = path.stat().st_size // 2
    if dataset is not None:
        with h5py.File(path, "r") as file:
            item = file[dataset]
            place = item.id.get_offset() + item.id.get_storage_size() // 2
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
