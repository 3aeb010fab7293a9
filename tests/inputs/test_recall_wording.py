# SPDX-License-Identifier: Apache-2.0
"""Tests of inputs/recall_wording.py with tokenizers that treat digits and spaces in the ways that models do.

python -m unittest discover -s tests/inputs
"""

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "inputs"), str(ROOT / "inputs" / "builtin")]

import recall_wording  # noqa: E402
from token_file import TokenFileWriter  # noqa: E402

# How Llama 3 splits: digits in threes, line ends with the punctuation before them.
THREES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(pre_tokenizer, decoder, **options) -> Tokenizer:
    """A tokenizer that has learned the words of the questions, and joins what its pre-tokenizer lets it join."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    texts = ["".join(recall_wording.FACT[:2]) + key + number + "." for key, number in
             zip(recall_wording.KEYS, recall_wording.NUMBERS)]
    texts += recall_wording.NOISE * 3 + ["".join(recall_wording.QUESTION)] * 3 + ["".join(recall_wording.QUESTION_OF_PAIR) + ";:. So it is.\n"] * 3
    alphabet = pre_tokenizers.ByteLevel.alphabet() if isinstance(decoder, decoders.ByteLevel) else []
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet,
                                                             show_progress=False, special_tokens=["<end>"]))
    return tokenizer


def single_digits() -> Tokenizer:
    """As SmolLM2's and Qwen's."""
    return train(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                 decoders.ByteLevel())


def digits_in_threes() -> Tokenizer:
    """As Llama 3's."""
    split = pre_tokenizers.Split(Regex(THREES), "isolated")
    return train(pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
                 decoders.ByteLevel())


def any_digits() -> Tokenizer:
    """As GPT-2's: numbers in as few tokens as were learned, the space before them among these."""
    return train(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


def sentence_pieces() -> Tokenizer:
    """As Llama 2's and Mistral's: spaces are part of words, and one is put before a text."""
    return train(pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(True)]),
                 decoders.Metaspace())


class Wording(unittest.TestCase):
    def expect_questions(self, tokenizer: Tokenizer) -> dict:
        """Put together from tokens, facts and questions read as they should."""
        wording = recall_wording.make_wording(tokenizer, 0)
        start = tokenizer.encode(recall_wording.ANCHOR, add_special_tokens=False).ids
        for number, name in itertools.product((0, 1, 777), ("fact", "pair")):
            before, between, after = wording[name]
            parts = recall_wording.FACT if name == "fact" else recall_wording.PAIR
            tokens = start + before + wording["keys"][number] + between + wording["values"][number] + after
            said = tokenizer.decode(tokens)
            key, value = recall_wording.KEYS[number], recall_wording.NUMBERS[number]
            self.assertTrue(said.endswith(parts[0] + key + parts[1] + value + parts[2]), said)
            self.assertEqual(tokenizer.encode(said.removeprefix(" ") if said[0] != " " else said,
                                              add_special_tokens=False).ids[-len(tokens) + len(start):],
                             tokens[len(start):])
        before, between, after = wording["alias"]
        tokens = start + before + wording["keys"][3] + between + wording["keys"][5] + after
        said = tokenizer.decode(tokens)
        self.assertTrue(said.endswith(f" The special number of the{recall_wording.KEYS[3]} is that of the"
                                      f"{recall_wording.KEYS[5]}."), said)
        self.assertEqual(tokenizer.encode(said.removeprefix(" ") if said[0] != " " else said,
                                          add_special_tokens=False).ids[-len(tokens) + len(start):], tokens[len(start):])
        self.assertEqual(len(set(map(tuple, wording["values"]))), 2048)
        for token in wording["sentence_ends"]:
            self.assertRegex(tokenizer.decode([token]), r"[.!?。！？\n]")
        self.assertIn(tokenizer.encode("is.", add_special_tokens=False).ids[-1], wording["sentence_ends"])
        self.assertEqual(wording["left_out_of_text"], [0])
        return wording

    def test_single_digits(self):
        wording = self.expect_questions(single_digits())
        self.assertEqual(set(map(len, wording["values"])), {7})

    def test_digits_in_threes(self):
        wording = self.expect_questions(digits_in_threes())
        self.assertLess(min(map(len, wording["values"])), 7)

    def test_digits_joined_as_they_were_learned(self):
        wording = self.expect_questions(any_digits())
        self.assertGreater(len(set(map(len, wording["values"]))), 1, "numbers differ in their tokens")

    def test_sentence_pieces(self):
        wording = self.expect_questions(sentence_pieces())
        self.assertEqual(set(map(len, wording["values"])), {7})

    def test_a_tokenizer_that_joins_pieces_is_refused(self):
        # Words are not kept apart here: whatever was seen often is one token, across the pieces of a question.
        tokenizer = train(pre_tokenizers.Split("\n", "isolated"), decoders.Fuse())
        with self.assertRaisesRegex(recall_wording.WordingError, "joins"):
            recall_wording.make_wording(tokenizer, None)

    def test_a_tokenizer_without_the_words_is_refused(self):
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1, ".": 2}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        with self.assertRaisesRegex(recall_wording.WordingError, "the same tokens"):
            recall_wording.make_wording(tokenizer, None)


class Tool(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.tokenizer = single_digits()
        self.teacher = self.write_tokenizer("teacher", self.tokenizer)
        self.file = self.folder / "validation.h5"
        digest = hashlib.sha256((self.teacher / "tokenizer.json").read_bytes()).hexdigest()
        with TokenFileWriter(self.file, np.dtype("<u2")) as writer:
            writer.append(np.arange(10), np.array([10]))
            writer.close({"tokenizer_sha256": digest, "vocabulary_size": np.int64(4000), "eos_token_id": np.int64(0)})

    def write_tokenizer(self, name: str, tokenizer: Tokenizer) -> Path:
        folder = self.folder / name
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
        return folder

    def run_tool(self, *arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "inputs" / "recall_wording.py", *arguments]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True)

    def test_gives_a_file_the_wording_and_keeps_the_rest(self):
        for _ in range(2):  # again: in place of the first
            result = self.run_tool("--tokenizer", self.teacher, self.file)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("a number has 7 to 7 tokens", result.stdout)
        with h5py.File(self.file) as file:
            self.assertEqual(list(file["tokens"][:]), list(range(10)))
            self.assertEqual(list(file.attrs["format_version"]), [1, 2])
            wording = recall_wording.make_wording(self.tokenizer, 0)
            offsets = file["recall/keys_offsets"][:]
            keys = [list(piece) for piece in np.split(file["recall/keys"][:], offsets[1:-1])]
            self.assertEqual(keys, wording["keys"])
            self.assertEqual(list(file["recall/left_out_of_text"][:]), [0])
            self.assertEqual(file["recall/start"].shape, (0,))
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["teacher", "validation.h5"])

    def test_gives_a_file_of_an_earlier_version_what_its_wording_lacks(self):
        self.assertEqual(self.run_tool("--tokenizer", self.teacher, self.file).returncode, 0)
        with h5py.File(self.file, "a") as file:
            del file["recall/alias"], file["recall/alias_offsets"]
            file.attrs["format_version"] = np.array([1, 1], np.int32)
        self.assertEqual(self.run_tool("--tokenizer", self.teacher, self.file).returncode, 0)
        with h5py.File(self.file) as file:
            self.assertEqual(list(file.attrs["format_version"]), [1, 2])
            self.assertEqual(len(file["recall/alias_offsets"]), 4)
            alias = list(itertools.chain(*recall_wording.make_wording(self.tokenizer, 0)["alias"]))
            self.assertEqual(list(file["recall/alias"][:]), alias)

    def test_another_tokenizer_is_refused_and_the_file_stays(self):
        before = self.file.read_bytes()
        other = self.write_tokenizer("other", any_digits())
        result = self.run_tool("--tokenizer", other, self.file)
        self.assertEqual(result.returncode, 1)
        self.assertIn("was made with the tokenizer of SHA-256", result.stderr)
        self.assertEqual(self.file.read_bytes(), before)

    def test_what_is_no_token_file_is_named(self):
        for name, content in (("nothing.h5", None), ("text.h5", b"text")):
            if content is not None:
                (self.folder / name).write_bytes(content)
            result = self.run_tool("--tokenizer", self.teacher, self.folder / name)
            self.assertEqual(result.returncode, 1)
            self.assertIn(name, result.stderr)
            self.assertNotIn("Traceback", result.stderr)

    def test_tokenise_writes_it_by_itself(self):
        text, output = self.folder / "text.txt", self.folder / "tokens.h5"
        text.write_text("The lake is still.")
        command = [sys.executable, ROOT / "inputs" / "tokenise.py", "--tokenizer", self.teacher, "--output", output, text]
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        with h5py.File(output) as file:
            self.assertEqual(len(file["recall/values_offsets"]), 2049)
            self.assertEqual(len(file["recall/alias_offsets"]), 4)


class BuiltIn(unittest.TestCase):
    def test_the_file_has_the_wording_of_its_vocabulary(self):
        import vocabulary

        with h5py.File(ROOT / "inputs" / "builtin" / "validation.h5") as file:
            for name, value in vocabulary.recall_wording().items():
                pieces = value if value and isinstance(value[0], list) else [value]
                self.assertEqual(file[f"recall/{name}"][:].tolist(), list(itertools.chain(*pieces)), name)


if __name__ == "__main__":
    unittest.main()
