# SPDX-License-Identifier: Apache-2.0
"""Reads the HDF5 files of a run, one dataclass per kind of file (formats: outputs/README.md)."""

import json
import zlib
from dataclasses import dataclass, replace
from typing import Optional

import h5py
import numpy as np

# The first number of format_version; 1 where it is not named here.
NEWEST_VERSIONS = {"amalgam checkpoint": 2, "amalgam scores": 2, "amalgam candidate": 2}
NO_LAYER = -1  # of a candidate that does not restore softmax in just one layer, or remove it from just one


class UnreadableFile(Exception):
    """A file that is damaged, half written, of another kind or of another version; the text is meant for people."""


@dataclass
class Provenance:
    """Where a file comes from: its root attributes."""

    filetype: str
    software_version: str
    git_sha: str
    date: str
    machine: str
    ranks: Optional[int]
    job_id: str
    command_line: str
    job: str
    libraries: str


@dataclass
class KeptCurve:
    """What every number of kept layers costs, before any distillation. Arrays: P numbers of layers."""

    kept: np.ndarray
    kl: np.ndarray  # nat/token
    recall: np.ndarray  # NaN if nothing was asked
    cache_bytes: np.ndarray  # of a token
    far_kl: Optional[np.ndarray] = None  # nat/token, of tokens that need far context


@dataclass
class Selection:
    layers: np.ndarray  # ascending
    order: np.ndarray  # best first
    rule: str
    options: str  # of the rule, for people; empty if the file is of an earlier version
    layout: list  # one mixer name per layer; "linear" in files of an earlier version
    curve: Optional[KeptCurve] = None


@dataclass
class Gates:
    """Of all layers, trained at once by a rule that chooses by them. Arrays: T steps, L layers; nat/token. What they were
    not trained on is None."""

    value: np.ndarray  # [T + 1, L], between 0, linear, and 1, softmax
    kl: Optional[np.ndarray]  # [T], of text
    recall_kl: Optional[np.ndarray]  # [T], of the answers
    far_kl: Optional[np.ndarray]  # [T], of tokens that need far context
    state_error: Optional[np.ndarray]  # [T], of the states after every layer at the answers; no unit
    seconds: float
    tokens: int

    def order(self):
        """Layers, the largest gate first; of equal ones that which was larger on average."""
        return np.lexsort((-self.value.mean(axis=0), -self.value[-1]))


@dataclass
class Scores:
    """What is known of the candidates. Arrays: C candidates, M measurements, S held-out sequences; nat/token."""

    candidate: np.ndarray
    layer: np.ndarray  # whose softmax attention is restored; NO_LAYER where it is not just one
    removed: np.ndarray  # that alone has none; NO_LAYER where it is not just one
    checkpoint_tokens: np.ndarray
    kl: np.ndarray  # [C, M, S], NaN where a candidate was not measured
    kl_mean: np.ndarray  # [C, M]
    kl_standard_error: np.ndarray  # [C, M]
    score: np.ndarray  # [C]
    score_standard_error: np.ndarray  # [C]
    seconds: np.ndarray  # [C]
    all_linear_kl: Optional[np.ndarray]  # [S]
    complete: bool  # False while it is put together from candidate files
    provenance: Provenance
    gates: Optional[Gates] = None  # where layers are chosen by them
    weighs_far_context: bool = False  # besides text and answers

    def of_removal(self):
        """Whether layers are judged by what is lost without their softmax attention, not by what is won with it."""
        return (self.removed != NO_LAYER).sum() > (self.layer != NO_LAYER).sum()

    def of_layers(self):
        """The same for the candidates of single layers, restored or removed: what is shown by layer. The score is the
        layer's importance: of a removed one minus the candidate's. None where gates decide: what was measured there
        are sets of layers."""
        layer = self.removed if self.of_removal() else self.layer
        score = -self.score if self.of_removal() else self.score
        rows = (layer != NO_LAYER) & (self.gates is None)
        by_candidate = ("candidate", "kl", "kl_mean", "kl_standard_error", "score_standard_error", "seconds")
        return replace(self, layer=layer[rows], score=score[rows], removed=self.removed[rows],
                       **{name: getattr(self, name)[rows] for name in by_candidate})


@dataclass
class Recall:
    """Answers to recall questions. Arrays: N models, A kinds, B lengths, D depths, Q questions of each of these."""

    kind: list
    length: np.ndarray  # tokens
    depth: np.ndarray  # %
    right: np.ndarray  # [N, A, B, D, Q]: 1 if right, else 0
    accuracy: np.ndarray  # [N, A, B, D]
    answer_loss: np.ndarray  # [N, A, B, D], nat/token
    checksum: np.ndarray  # [A, B, D, Q]: where two files agree, the same was asked


@dataclass
class Evaluation:
    """Arrays: N models, P ranges of positions, S sequences; losses and KL in nat/token."""

    model: list
    position_edges: np.ndarray
    loss_by_position: np.ndarray
    perplexity_by_position: np.ndarray
    kl_by_position: np.ndarray
    loss: np.ndarray
    perplexity: np.ndarray
    kl: np.ndarray
    loss_standard_error: np.ndarray
    kl_standard_error: np.ndarray
    loss_per_sequence: np.ndarray
    kl_per_sequence: np.ndarray
    answer_accuracy: Optional[np.ndarray]
    answer_count: Optional[int]
    recall: Optional[Recall]
    layout: list
    provenance: Provenance


@dataclass
class CheckpointInfo:
    """The root attributes of a checkpoint; its tensors are not read."""

    name: str
    stage: str
    step: int
    tokens: int
    finished: bool  # the last one of its stage
    config: dict  # with the layout, one mixer name per layer
    provenance: Provenance


def text(value):
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def split_layout(value):
    """Mixer names per layer; [] if the text is something else, such as "gated_delta_net x 26, softmax at {5, 14}"."""
    names = [name.strip() for name in text(value).split(",")]
    return names if all(name.isidentifier() for name in names) else []


def open_result(path, filetype):
    """Opens a file read-only, without a lock since the run may be at work on it, and checks kind and version."""
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UnreadableFile(f"{path.name}: cannot be opened as HDF5 ({error}); is it still being written?") from error
    found = text(file.attrs.get("filetype", ""))
    version = tuple(int(number) for number in np.atleast_1d(file.attrs.get("format_version", [])))
    if found != filetype:
        file.close()
        raise UnreadableFile(f'{path.name}: filetype is "{found}" but "{filetype}" is expected here; was it renamed?')
    newest = NEWEST_VERSIONS.get(filetype, 1)
    if not version or not 1 <= version[0] <= newest:
        file.close()
        raise UnreadableFile(f"{path.name}: format_version is {list(version)} but this reader knows versions up to "
                             f"{newest}.x; is there a newer analysis/?")
    return file


def expect_checksums(file):
    """Compares the attribute crc32 of every dataset that has one; raises ValueError."""

    def compare(name, item):
        if isinstance(item, h5py.Dataset) and "crc32" in item.attrs:
            if zlib.crc32(item[()].tobytes()) != int(item.attrs["crc32"]):
                raise ValueError(f"/{name} does not match its checksum")

    file.visititems(compare)


def read_with(path, filetype, reader):
    with open_result(path, filetype) as file:
        try:
            if filetype != "amalgam checkpoint":  # their tensors, gigabytes, are not read here
                expect_checksums(file)
            return reader(file)
        except (KeyError, OSError, ValueError, TypeError, AttributeError) as error:
            raise UnreadableFile(f"{path.name}: a dataset or attribute is missing or damaged ({error}); "
                                 "is it still being written?") from error


def expect_shapes(file, shapes):
    """Checks datasets against {name: shape}, where equal letters stand for equal lengths; raises ValueError."""
    lengths = {}
    for name, letters in shapes.items():
        shape = file[name].shape
        if len(shape) != len(letters):
            raise ValueError(f"/{name} has {len(shape)} dimensions but [{', '.join(letters)}] is expected")
        for letter, length in zip(letters, shape):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(f"/{name} has shape {list(shape)} but {letter} is {lengths[letter]} elsewhere")
    return lengths


CANDIDATE_SHAPES = {"candidate": "C", "seconds": "C", "checkpoint_tokens": "M", "kl": "CMS", "kl_mean": "CM",
                    "kl_standard_error": "CM"}
EVALUATION_SHAPES = {"model": "N", "loss_by_position": "NP", "perplexity_by_position": "NP", "kl_by_position": "NP",
                     "loss": "N", "perplexity": "N", "kl": "N", "loss_standard_error": "N", "kl_standard_error": "N",
                     "loss_per_sequence": "NS", "kl_per_sequence": "NS"}


RECALL_SHAPES = {"model": "N", "recall/kind": "A", "recall/length": "B", "recall/depth": "D", "recall/right": "NABDQ",
                 "recall/accuracy": "NABD", "recall/answer_loss": "NABD", "recall/checksum": "ABDQ"}


def read_provenance(file):
    words = {name: text(file.attrs.get(name, "")) for name in
             ("filetype", "software_version", "git_sha", "date", "machine", "job_id", "command_line", "job",
              "libraries")}
    ranks = file.attrs.get("ranks")
    return Provenance(ranks=None if ranks is None else int(ranks), **words)


def single_layers(file):
    """Of each candidate of scores.h5 or of its own file: the layer of its only softmax mixer, and that of its only other
    mixer, as `layer` and `removed`; NO_LAYER where there is no such."""
    if "layout" not in file:  # format 1, where every candidate restored one
        expect_shapes(file, {"candidate": "C", "layer": "C"})
        return {"layer": file["layer"][:], "removed": np.full(file["layer"].shape, NO_LAYER)}
    expect_shapes(file, {"candidate": "C", "layout": "CL"})
    mixers = np.array([text(name) for name in file["mixer"][:]])
    softmax = mixers[file["layout"][:]] == "softmax"
    return {"layer": np.where(softmax.sum(axis=1) == 1, softmax.argmax(axis=1), NO_LAYER),
            "removed": np.where((~softmax).sum(axis=1) == 1, (~softmax).argmax(axis=1), NO_LAYER)}


CURVE = ("kept", "kl", "recall", "cache_bytes")


def read_selection(path):
    def reader(file):
        curve = None
        if "curve" in file:
            names = CURVE + (("far_kl",) if "far_kl" in file["curve"] else ())
            expect_shapes(file["curve"], {name: "P" for name in names})
            curve = KeptCurve(**{name: file["curve"][name][:] for name in names})
        return Selection(layers=file["layers"][:], order=file["order"][:], rule=text(file.attrs["rule"]), curve=curve,
                         options=text(file.attrs["options"]), layout=[text(name) for name in file["layout"][:]])

    return read_with(path, "amalgam selection", reader)


def read_selection_in_scores(path):
    """The selection that format 1 of scores.h5 may hold, or None."""

    def reader(file):
        if "selection" not in file:
            return None
        group = file["selection"]
        layers = group["layers"][:]
        layout = ["softmax" if layer in layers else "linear" for layer in range(int(group.attrs["number_of_layers"]))]
        return Selection(layers=layers, order=group["order"][:], rule=text(group.attrs["rule"]), options="",
                         layout=layout)

    return read_with(path, "amalgam scores", reader)


def read_gates(file):
    """Of an open scores.h5; None if none were trained."""
    if "gates" not in file:
        return None
    group = file["gates"]
    value = group["value"][:]
    losses = {name: group[name][:] if name in group else None for name in ("kl", "recall_kl", "far_kl", "state_error")}
    is_trained = losses["kl"] is not None or losses["state_error"] is not None
    if value.ndim != 2 or not is_trained or any(
            loss is not None and loss.shape != (len(value) - 1,) for loss in losses.values()):
        raise ValueError("the datasets of /gates do not fit together")
    return Gates(value=value, **losses, seconds=float(group["seconds"][0]),
                 tokens=int(group.attrs["tokens"]))


def read_scores(path):
    def reader(file):
        if "kl" not in file:  # format 1, of a rule that needs no scores: only the selection
            return None
        expect_shapes(file, CANDIDATE_SHAPES | {"score": "C", "score_standard_error": "C"})
        return Scores(
            candidate=file["candidate"][:], **single_layers(file), checkpoint_tokens=file["checkpoint_tokens"][:],
            kl=file["kl"][:], kl_mean=file["kl_mean"][:], kl_standard_error=file["kl_standard_error"][:],
            score=file["score"][:], score_standard_error=file["score_standard_error"][:], seconds=file["seconds"][:],
            all_linear_kl=file["all_linear_kl"][:] if "all_linear_kl" in file else None,
            complete=True, provenance=read_provenance(file), gates=read_gates(file),
            weighs_far_context="far_weight" in file)

    return read_with(path, "amalgam scores", reader)


def read_candidate(path):
    """One candidate, as scores with C = 1 that are not complete."""

    def reader(file):
        if expect_shapes(file, CANDIDATE_SHAPES)["C"] != 1:
            raise ValueError("it holds more than one candidate")
        kl = file["kl"][:]
        kl_mean = file["kl_mean"][:]
        error = file["kl_standard_error"][:]
        return Scores(candidate=file["candidate"][:], **single_layers(file),
                      checkpoint_tokens=file["checkpoint_tokens"][:], kl=kl, kl_mean=kl_mean, kl_standard_error=error,
                      score=file["score"][:] if "score" in file else -kl_mean[:, -1],  # absent in early files
                      score_standard_error=file["score_standard_error"][:] if "score" in file else error[:, -1],
                      seconds=file["seconds"][:], all_linear_kl=None, complete=False, provenance=read_provenance(file))

    return read_with(path, "amalgam candidate", reader)


def join_candidates(parts):
    """Scores put together from candidate files that may have got to different numbers of measurements."""
    parts = sorted(parts, key=lambda part: int(part.candidate[0]))
    tokens = np.unique(np.concatenate([part.checkpoint_tokens for part in parts]))
    sequences = max(part.kl.shape[2] for part in parts)
    kl = np.full((len(parts), len(tokens), sequences), np.nan)
    kl_mean = np.full((len(parts), len(tokens)), np.nan)
    kl_error = np.full((len(parts), len(tokens)), np.nan)
    for row, part in enumerate(parts):
        where = np.searchsorted(tokens, part.checkpoint_tokens)
        kl[row, where, : part.kl.shape[2]] = part.kl[0]
        kl_mean[row, where] = part.kl_mean[0]
        kl_error[row, where] = part.kl_standard_error[0]
    joined = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in ("candidate", "layer", "removed", "score", "score_standard_error", "seconds")}
    return Scores(checkpoint_tokens=tokens, kl=kl, kl_mean=kl_mean, kl_standard_error=kl_error, all_linear_kl=None,
                  complete=False, provenance=parts[-1].provenance, **joined)


def read_recall(file):
    if "recall" not in file:
        return None
    expect_shapes(file, RECALL_SHAPES)
    group = file["recall"]
    arrays = ("length", "depth", "right", "accuracy", "answer_loss", "checksum")
    return Recall(kind=[text(name) for name in group["kind"][:]], **{name: group[name][:] for name in arrays})


def read_evaluation(path):
    arrays = [name for name in EVALUATION_SHAPES if name != "model"]

    def reader(file):
        ranges = expect_shapes(file, EVALUATION_SHAPES)["P"]
        if file["position_edges"].shape != (ranges + 1,):
            raise ValueError(f"/position_edges must have {ranges + 1} entries")
        answers = "answer_accuracy" in file
        if answers:
            expect_shapes(file, {"model": "N", "answer_accuracy": "N"})
        return Evaluation(model=[text(name) for name in file["model"][:]],
                          answer_accuracy=file["answer_accuracy"][:] if answers else None,
                          answer_count=int(file["answer_count"][()]) if answers else None, recall=read_recall(file),
                          layout=split_layout(file.attrs.get("layout", "")), provenance=read_provenance(file),
                          position_edges=file["position_edges"][:], **{name: file[name][:] for name in arrays})

    return read_with(path, "amalgam evaluation", reader)


def read_checkpoint_info(path):
    def reader(file):
        stage = text(file.attrs["stage"])
        config = json.loads(text(file.attrs["config"]))
        if not isinstance(config.get("layout"), list):
            raise ValueError("config holds no layout")
        return CheckpointInfo(name=path.name, stage=stage, step=int(file.attrs["step"]),
                              tokens=int(file.attrs["tokens"]), finished=path.stem == stage, config=config,
                              provenance=read_provenance(file))

    return read_with(path, "amalgam checkpoint", reader)
