# SPDX-License-Identifier: Apache-2.0
"""The questions of RULER's 13 tasks, made by lm-evaluation-harness's own generators, called one by one: any lengths, no
network. Each (task, length) starts from the seed, so that it does not depend on what else is asked: the questions are those
of `lm_eval --seed N` for this task and length alone, given the same data."""

import contextlib
import io
import json
import logging
import os
import random
import re
from pathlib import Path

import nltk
import numpy as np

from lm_eval_requests import RequestError

LEAST_LENGTH = 256  # below, templates alone fill a prompt and generators search for ever
ESSAY_STEP = 500  # words
TRIALS = 20  # smallest questions that must fit before a generator is let loose: some repeat until one does

# name: (haystack, type of keys, type of values, more arguments)
NEEDLES = {
    "niah_single_1": ("repeat", "words", "numbers", {}),
    "niah_single_2": ("essay", "words", "numbers", {}),
    "niah_single_3": ("essay", "words", "uuids", {}),
    "niah_multikey_1": ("essay", "words", "numbers", {"num_needle_k": 4}),
    "niah_multikey_2": ("needle", "words", "numbers", {}),
    "niah_multikey_3": ("needle", "uuids", "uuids", {}),
    "niah_multivalue": ("essay", "words", "numbers", {"num_needle_v": 4}),
    "niah_multiquery": ("essay", "words", "numbers", {"num_needle_q": 4}),
}
QUESTION_TASKS = ("ruler_qa_squad", "ruler_qa_hotpot")
TASKS = (*NEEDLES, "ruler_vt", "ruler_cwe", "ruler_fwe", *QUESTION_TASKS)
ESSAY_TASKS = tuple(task for task, needle in NEEDLES.items() if needle[0] == "essay")
KEPT = ("index", "input", "outputs", "length", "max_length", "gen_prefix")


class TooShort(Exception):
    """Questions that make sense do not fit the length; the text says why."""


def read_essays(path):
    """Words of a text file, or of the `text` of .json (one object or a list) or .jsonl."""
    raw = Path(path).read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            raw = " ".join(json.loads(line)["text"] for line in raw.splitlines() if line.strip())
        elif path.suffix == ".json":
            found = json.loads(raw)
            raw = found["text"] if isinstance(found, dict) else " ".join(entry["text"] for entry in found)
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"--essays {path}: not JSON with `text` ({error!r}); a plain text file will do") from error
    words = re.sub(r"\s+", " ", raw).strip().split(" ")
    if len(words) < 100:
        raise RequestError(f"--essays {path}: {len(words)} words (a haystack needs thousands)")
    return words


def with_answer(*parts):
    """A question, perhaps after an example, and its answer, as generators measure it."""
    *texts, answer = parts
    return "\n".join(texts) + f" {answer}"


class Ruler:
    """`nltk_data`: folder with tokenizers/punkt_tab, or None; essays, squad, hotpot: files, or None if their tasks are not
    asked for."""

    def __init__(self, tokenizer, seed, nltk_data=None, essays=None, squad=None, hotpot=None):
        logging.getLogger("lm_eval.tasks.ruler").setLevel(logging.ERROR)  # what it warns of is told by ruler.py
        os.environ["LOCAL_RANK"] = "1"  # at rank 0 the harness tries to download punkt_tab, and waits
        if nltk_data is not None:
            nltk.data.path.insert(0, str(nltk_data))
        with contextlib.redirect_stdout(io.StringIO()):
            from lm_eval.tasks.ruler import cwe_utils, fwe_utils, niah_utils, prepare_niah, qa_utils, vt_utils
        del os.environ["LOCAL_RANK"]
        self.cwe, self.fwe, self.vt, self.qa, self.niah = cwe_utils, fwe_utils, vt_utils, qa_utils, prepare_niah
        self.needle_template = niah_utils.TEMPLATE
        self.cwe_state = cwe_utils.RNG.getstate()
        self.tokenizer, self.seed = tokenizer, seed
        self.essays = None if essays is None else read_essays(essays)
        self.questions = dict(zip(QUESTION_TASKS, (squad, hotpot)))

    def documents(self, task, length, samples):
        """Documents of one task and length. Throws TooShort, RequestError."""
        if length < LEAST_LENGTH:
            raise TooShort(f"less than {LEAST_LENGTH} tokens")
        make = self.needles if task in NEEDLES else getattr(self, task)
        arguments = (task,) if task in NEEDLES or task in self.questions else ()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # generators talk
                found = make(*arguments, length=length, samples=samples)
        except ValueError as error:  # as the generators say "does not fit"
            raise TooShort(str(error)) from error
        return [{name: document[name] for name in KEPT} for document in found]

    def start_anew(self):
        random.seed(self.seed)
        np.random.seed(self.seed)
        self.cwe.RNG.setstate(self.cwe_state)

    def count(self, text):
        return len(self.tokenizer(text).input_ids)

    def check_fit(self, length, new_tokens, smallest):
        """Generators look for the largest question that fits with its answer. Where not even the smallest does, one goes on
        with nothing in it and another for ever."""
        needed = max(self.count(smallest()) for _ in range(TRIALS)) + new_tokens
        if needed > length:
            raise TooShort(f"the smallest question needs {needed} tokens")

    def needles(self, task, length, samples):
        haystack_type, keys, values, more = NEEDLES[task]
        haystack = self.essays if haystack_type == "essay" else self.niah.get_haystack(haystack_type)
        self.start_anew()
        found = self.niah.generate_samples(haystack, TOKENIZER=self.tokenizer, max_seq_length=length, num_samples=samples,
                                           template=self.needle_template, type_haystack=haystack_type, type_needle_k=keys,
                                           type_needle_v=values, **more)
        if haystack_type == "essay" and len(found[0]["input"].split()) < min(ESSAY_STEP, len(haystack)):
            raise TooShort(f"{ESSAY_STEP} words of essay, the least that the generator takes, do not fit")
        return found

    def ruler_vt(self, length, samples):
        self.start_anew()
        example = self.vt.sys_vartrack_w_noise_random(tokenizer=self.tokenizer, num_samples=1, max_seq_length=500, incremental=5)[0]
        extra = example["input"] + " " + " ".join(example["outputs"]) + "\n\n"
        state = random.getstate(), np.random.get_state()
        self.check_fit(length, 30 + self.count(extra), lambda: with_answer(*self.vt.generate_input_output(10, 1, 4)))
        random.setstate(state[0])
        np.random.set_state(state[1])
        return self.vt.sys_vartrack_w_noise_random(tokenizer=self.tokenizer, num_samples=samples, max_seq_length=length,
                                                   icl_example=example)

    def ruler_cwe(self, length, samples):
        self.check_fit(length, 120, lambda: with_answer(*self.cwe.generate_input_output(10, length)))
        self.start_anew()
        return self.cwe.sys_word_pair_random(num_samples=samples, max_seq_length=length, tokenizer=self.tokenizer)

    def ruler_fwe(self, length, samples):
        self.check_fit(length, 50, lambda: self.fwe.TEMPLATE)
        self.start_anew()
        return self.fwe.sys_kwext(tokenizer=self.tokenizer, max_seq_length=length, num_samples=samples)

    def question_source(self, task):
        """(questions, documents) as the harness reads them, from a file instead of the network."""
        path = self.questions[task]
        read = self.qa.read_squad if task == "ruler_qa_squad" else self.qa.read_hotpotqa
        try:
            contents = json.loads(Path(path).read_text(encoding="utf-8"))
            download, self.qa.download_json = self.qa.download_json, lambda _: contents
            try:
                return read(str(path))
            finally:
                self.qa.download_json = download
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{path}: not as {task} needs it ({error!r}): the published dev file in JSON is meant") from error

    def questions_among_documents(self, task, length, samples):
        questions, documents = self.question_source(task)
        asked = min(samples, len(questions))
        self.start_anew()
        found = self.qa.generate_samples(tokenizer=self.tokenizer, docs=documents, qas=questions, max_seq_length=length,
                                         num_samples=asked)
        if 2 * len(found) < asked:
            raise TooShort(f"only {len(found)} of {asked} questions fit with the documents that answer them")
        if sum("\n\nDocument 2:" in document["input"] for document in found) * 2 < len(found):
            raise TooShort("a single document fits: there is nothing to find")
        return found

    ruler_qa_squad = ruler_qa_hotpot = questions_among_documents
