# SPDX-License-Identifier: Apache-2.0
"""What lm_eval_export.py and lm_eval_score.py share: a model for lm-evaluation-harness that turns its requests into
token ids as the harness's own Hugging Face model does, and the file that keeps them (format: outputs/README.md).
How the harness is made to ask: lm_eval_harness.py.

Needs lm-eval 0.4.13 and transformers, on a login node; neither a model nor a GPU.
"""

import hashlib
import itertools
import json
import zlib
from pathlib import Path

from python_packages import require_packages
from token_bytes import keeps_spaces, token_bytes

require_packages("lm_eval", "transformers", "h5py")

import h5py
import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from transformers import AutoTokenizer

FILETYPE = "amalgam requests"
FORMAT_VERSION = (1, 1)
DEFAULT_NEW_TOKENS = 256
LEAST_COMPRESSED = 1 << 14  # elements; long prompts share much of their text


class RequestError(Exception):
    """Something that cannot be exported or scored; the text is meant for people."""


def load_tokenizer(folder):
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - transformers raises whatever it likes
        raise RequestError(f"{folder}: no tokenizer that transformers reads ({type(error).__name__}: {error})") from error
    if tokenizer.eos_token_id is None:
        raise RequestError(f"{folder}: the tokenizer has no end-of-text token (generation would not end); set eos_token in its "
                           "tokenizer_config.json")
    return tokenizer


def end_tokens(folder, tokenizer):
    """Ids that end generation with the harness's Hugging Face model, ascending: the tokenizer's, and those of
    generation_config.json (else config.json), of which chat models have several."""
    ids = None
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        if path.is_file():
            ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            break
    more = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return sorted({tokenizer.eos_token_id, *more})


class PiecewiseModel(TemplateLM):
    """Cuts every request of the harness into pieces (token ids) and asks `answer` for the answer to each piece.

    A piece is ("judge", context, continuation) -> (log-likelihood, is greedy), or
    ("generate", context, most new tokens, stop strings) -> token ids.
    """

    def __init__(self, folder, max_length, add_bos):
        super().__init__()
        self.tokenizer = load_tokenizer(folder)
        self.end_tokens = end_tokens(folder, self.tokenizer)
        self.folder = folder
        self.max_length = max_length
        self.add_bos = add_bos
        self.cut = 0  # requests whose beginning did not fit

    def answer(self, piece):
        raise NotImplementedError

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self):
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self):
        return str(self.folder).replace("/", "__")

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.tokenizer.apply_chat_template(chat_history, tokenize=False,
                                                  add_generation_prompt=add_generation_prompt,
                                                  continue_final_message=not add_generation_prompt)

    def tok_encode(self, string, add_special_tokens=None, **_):
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = self.add_bos and not (bos and string.startswith(bos))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def judge(self, context, continuation):
        """Log-likelihood and greediness of a continuation; of what is too long, the beginning is dropped."""
        if not continuation:
            return 0.0, True
        if len(continuation) > self.max_length:
            raise RequestError(f"a continuation has {len(continuation)} tokens but --max-length is {self.max_length} "
                               "(the model sees no more at once); raise it")
        surplus = len(context) + len(continuation) - self.max_length - 1
        self.cut += surplus > 0
        context = context[max(0, surplus):]
        return self.answer(("judge", context, continuation))

    def _loglikelihood_tokens(self, requests, **_):
        return [self.judge(context, continuation) for _, context, continuation in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        sums = []
        for text, in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                                                      max_seq_len=self.max_length, context_len=1)
            sums.append(sum(self.judge(*utils.make_disjoint_window(window))[0] for window in windows))
        return sums

    def generate_until(self, requests, disable_tqdm=False):
        return [self.generate(*request.args) for request in requests]

    def generate(self, text, options):
        if options.get("do_sample") or options.get("temperature", 0.0) not in (0, 0.0):
            raise RequestError(f"a task asks for sampling ({options}) but answers are greedy; leave it out")
        until = options.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        count = int(options.get("max_gen_toks", DEFAULT_NEW_TOKENS))
        if count >= self.max_length:
            raise RequestError(f"a task generates {count} tokens but --max-length is {self.max_length} (no room for "
                               "its question); raise it")
        context = self.tok_encode(text)
        self.cut += len(context) > self.max_length - count
        context = context[-(self.max_length - count):]
        tokens = self.answer(("generate", context, count, until))
        tokens = list(itertools.takewhile(lambda token: token not in self.end_tokens, tokens))
        result = self.tokenizer.decode(tokens, skip_special_tokens=True)
        for stop in until:
            if stop:
                result = result.split(stop)[0]
        return result


def key_of(piece):
    return hashlib.sha256(json.dumps(piece).encode()).hexdigest()


class Recorder(PiecewiseModel):
    """Collects the pieces, each once (tokens as arrays: there may be millions), and answers with nothing in particular."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pieces = {}

    def answer(self, piece):
        key = key_of(piece)
        if key not in self.pieces:
            self.pieces[key] = tuple(np.array(part, "<i4") if isinstance(part, list) and place < 3 else part
                                     for place, part in enumerate(piece))
        return (0.0, False) if piece[0] == "judge" else []


class Replayer(PiecewiseModel):
    """Answers from `answers`, {key of the piece: answer}. Several models are asked the same: `known_tokens`, a dict that
    they share, spares all but the first the tokenising."""

    def __init__(self, folder, max_length, add_bos, answers, known_tokens=None):
        super().__init__(folder, max_length, add_bos)
        self.answers = answers
        self.known_tokens = {} if known_tokens is None else known_tokens

    def tok_encode(self, string, add_special_tokens=None, **_):
        key = hashlib.blake2b(f"{add_special_tokens} {string}".encode(), digest_size=16).digest()
        if key not in self.known_tokens:
            self.known_tokens[key] = np.array(super().tok_encode(string, add_special_tokens), "<i4")
        return self.known_tokens[key].tolist()

    def answer(self, piece):
        try:
            return self.answers[key_of(piece)]
        except KeyError:
            raise RequestError("the harness asks for something that is not among the exported requests (another version "
                               "of its tasks or data?); export and evaluate again") from None


def stop_string_datasets(tokenizer, sets):
    """(dataset, values, type) of the strings that end answers and of the bytes of all tokens. Nothing where there are no
    strings, or bytes are not known: then answers go on to their full length, and scoring cuts them."""
    known = token_bytes(tokenizer) if any(map(any, sets)) else None
    if not known:
        return []
    all_spaces = keeps_spaces(tokenizer)  # else a string may be in the bytes but not in the text
    strings = [(number, string.encode()) for number, until in enumerate(sets) for string in until
               if string and (all_spaces or " " not in string)]
    texts = [string for _, string in strings]
    starts = lambda pieces: [0, *itertools.accumulate(map(len, pieces))]  # noqa: E731
    return [("token_bytes", list(b"".join(known)), "<u2"), ("token_byte_offsets", starts(known), "<i8"),
            ("stop_strings", list(b"".join(texts)), "<u2"), ("stop_string_offsets", starts(texts), "<i8"),
            ("stop_string_set", [number for number, _ in strings], "<i8")]


def write_requests(path, model, settings, tokenizer_json, data):
    """`settings`: what lm_eval_score.py needs to ask the harness for the same again; `data`: {file: SHA-256} of what the
    questions were made from (both JSON)."""
    tokens, offsets, context_tokens, new_tokens, stop_set, sets = [np.zeros(0, "<i4")], [0], [], [], [], {}
    for piece in model.pieces.values():
        kind, context = piece[:2]
        parts = [context, piece[2]] if kind == "judge" else [context]
        tokens.extend(parts)
        offsets.append(offsets[-1] + sum(map(len, parts)))
        context_tokens.append(len(context))
        new_tokens.append(0 if kind == "judge" else piece[2])
        until = tuple(piece[3]) if kind == "generate" else ()
        stop_set.append(sets.setdefault(until, len(sets)))
    stops = model.end_tokens * len(sets)
    stop_offsets = range(0, len(stops) + 1, len(model.end_tokens))
    tokens = np.concatenate(tokens)
    vocabulary = max(len(model.tokenizer), int(tokens.max()) + 1)
    with h5py.File(path, "x", libver=("earliest", "v110")) as file:
        file.attrs["filetype"] = FILETYPE
        file.attrs["format_version"] = np.array(FORMAT_VERSION, dtype=np.int32)
        file.attrs["vocabulary_size"] = np.int64(vocabulary)
        file.attrs["tokenizer_sha256"] = hashlib.sha256(tokenizer_json).hexdigest()
        file.attrs["fingerprint"] = hashlib.sha256("".join(model.pieces).encode()).hexdigest()
        file.attrs["settings"] = json.dumps(settings)
        file.attrs["data"] = json.dumps(data)
        for name, values, dtype in (("tokens", tokens, "<i4"), ("offsets", offsets, "<i8"),
                                    ("context_tokens", context_tokens, "<i8"), ("max_new_tokens", new_tokens, "<i8"),
                                    ("stop_set", stop_set, "<i8"), ("stop_tokens", stops, "<i4"),
                                    ("stop_offsets", stop_offsets, "<i8"), *stop_string_datasets(model.tokenizer, sets)):
            values = np.array(values, dtype=dtype)
            packed = {"compression": "gzip", "shuffle": True} if len(values) >= LEAST_COMPRESSED else {}
            file.create_dataset(name, data=values, **packed)
            file[name].attrs["crc32"] = np.int64(zlib.crc32(values.tobytes()))
        file["key"] = np.array(list(model.pieces), dtype="S64")


def read_requests(path):
    """(settings, {file: SHA-256} of the data, fingerprint, keys of the pieces in the order of the file)."""
    with h5py.File(path, "r") as file:
        if file.attrs.get("filetype") != FILETYPE:
            raise RequestError(f'{path}: filetype is "{file.attrs.get("filetype", "")}" ("{FILETYPE}" is needed)')
        keys = [key.decode() for key in file["key"][:]]
        if "data" not in file.attrs:
            raise RequestError(f"{path}: written by an older lm_eval_export.py (seeds and data are not in it); export again")
        return json.loads(file.attrs["settings"]), json.loads(file.attrs["data"]), file.attrs["fingerprint"], keys


def read_answers(path, model, fingerprint, keys):
    """{key: answer} of one model in an evaluation.h5."""
    with h5py.File(path, "r") as file:
        if "requests" not in file:
            raise RequestError(f"{path}: holds no answers to requests (was evaluate.requests set in the job?)")
        group = file["requests"]
        found = group.attrs["fingerprint"]
        found = found.decode() if isinstance(found, bytes) else found
        if found != fingerprint:
            raise RequestError(f"{path}: answers other requests than these (they would be taken for one another)")
        if model not in group:
            raise RequestError(f"{path}: no answers of \"{model}\"; there are {', '.join(group)}")
        answers = group[model]
        likelihood, greedy = answers["loglikelihood"][:], answers["greedy"][:]
        generated, offsets = answers["generated"][:], answers["generated_offsets"][:]
    return {key: (float(likelihood[i]), bool(greedy[i])) if np.isfinite(likelihood[i])
            else generated[offsets[i] : offsets[i + 1]].tolist() for i, key in enumerate(keys)}
