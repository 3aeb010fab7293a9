# SPDX-License-Identifier: Apache-2.0
"""Tests of inputs/tokenise.py as users run it: on small corpora, with a small tokenizer made here.

python -m unittest discover -s tests/inputs
"""

import gzip
import hashlib
import importlib.util
import json
import lzma
import subprocess
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import h5py
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TOOL = Path(__file__).resolve().parents[2] / "inputs" / "tokenise.py"
EOS = "<end>"
TEXTS = ["Hello, world.", "", "Zwölf Boxkämpfer 日本 🎉", "two\n\nparagraphs", 'quotes " and \\', "a <end> inside"]


def make_tokenizer(folder: Path, vocabulary_size: int = 0) -> Tokenizer:
    """One token per byte, and the end token; filled up to vocabulary_size with tokens that no text has."""
    folder.mkdir()
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for index in range(len(vocabulary), vocabulary_size - 1):
        vocabulary[f"unused {index}"] = index
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    return tokenizer


class TokeniseTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.tokenizer = make_tokenizer(self.folder / "teacher")
        self.eos = self.tokenizer.token_to_id(EOS)
        self.output = self.folder / "tokens.h5"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        content = content.encode() if isinstance(content, str) else content
        if name.endswith(".gz"):
            content = gzip.compress(content)
        elif name.endswith(".xz"):
            content = lzma.compress(content)
        elif name.endswith(".zst"):
            import zstandard

            # Two frames, as parallel compressors write them.
            middle = len(content) // 2
            content = b"".join(zstandard.compress(part) for part in (content[:middle], content[middle:]))
        path.write_bytes(content)
        return path

    def json_lines(self, texts: list[str], field: str = "text") -> str:
        return "".join(json.dumps({"id": index, field: text}) + "\n" for index, text in enumerate(texts))

    def run_tool(self, *arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, TOOL, "--tokenizer", self.folder / "teacher", "--output", self.output, *arguments]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True)

    def tokenise(self, *arguments, processes: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and offsets of the file that the tool writes; the file is removed."""
        result = self.run_tool("--processes", processes, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        with h5py.File(self.output) as file:
            tokens, offsets = file["tokens"][:], file["document_offsets"][:]
        self.output.unlink()
        return tokens, offsets

    def expected(self, texts: list[str], end: list[int]) -> list[list[int]]:
        return [self.tokenizer.encode(text, add_special_tokens=False).ids + end for text in texts]

    def assert_documents(self, result: tuple[np.ndarray, np.ndarray], documents: list[list[int]]):
        tokens, offsets = result
        self.assertEqual(offsets[0], 0)
        self.assertEqual(offsets[-1], len(tokens))
        self.assertEqual([tokens[a:b].tolist() for a, b in zip(offsets, offsets[1:])], documents)

    def assert_fails(self, *arguments, says: list[str]):
        result = self.run_tool(*arguments)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for words in says:
            self.assertIn(words, result.stderr)
        left = [path.name for path in self.folder.iterdir() if "tokens.h5" in path.name]
        self.assertEqual(left, [])

    def test_reads_every_compression(self):
        for extension in (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst"):
            with self.subTest(extension=extension):
                if extension.endswith(".zst") and importlib.util.find_spec("zstandard") is None:
                    self.skipTest("the Python package zstandard is missing")
                corpus = self.write("corpus" + extension, self.json_lines(TEXTS))
                self.assert_documents(self.tokenise(corpus), self.expected(TEXTS, [self.eos]))

    def test_writes_the_documented_file(self):
        first, second = (self.write(name, self.json_lines(TEXTS)) for name in ("a.jsonl", "b.jsonl.gz"))
        result = self.run_tool(first, second)
        self.assertEqual(result.returncode, 0, result.stderr)
        with h5py.File(self.output) as file:
            self.assertEqual(file["tokens"].dtype, np.uint16)
            self.assertIsNone(file["tokens"].chunks)
            self.assertEqual(file["document_offsets"].dtype, np.int64)
            self.assertEqual(len(file["document_offsets"]), 2 * len(TEXTS) + 1)
            for name in ("tokens", "document_offsets"):
                self.assertEqual(file[name].attrs["crc32"], zlib.crc32(file[name][()].tobytes()))
            self.assertEqual(file.attrs["filetype"], "amalgam tokens")
            self.assertEqual(file.attrs["format_version"].dtype, np.int32)
            self.assertEqual(file.attrs["format_version"].tolist(), [1, 2])
            self.assertEqual(file.attrs["tokenizer"], "teacher")
            digest = hashlib.sha256((self.folder / "teacher" / "tokenizer.json").read_bytes()).hexdigest()
            self.assertEqual(file.attrs["tokenizer_sha256"], digest)
            self.assertEqual(file.attrs["vocabulary_size"], 257)
            self.assertEqual(file.attrs["eos_token_id"], self.eos)
            self.assertEqual(file.attrs["source"], "a.jsonl, b.jsonl.gz")
            self.assertRegex(file.attrs["created"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith(".")], [])

    def test_vocabulary_above_65536_is_stored_in_32_bits(self):
        for vocabulary_size, dtype in ((65536, np.uint16), (65537, np.uint32)):
            with self.subTest(vocabulary_size=vocabulary_size):
                teacher = self.folder / f"teacher {vocabulary_size}"
                make_tokenizer(teacher, vocabulary_size)
                corpus = self.write("corpus.jsonl", self.json_lines(TEXTS))
                tokens, _ = self.tokenise(corpus, "--tokenizer", teacher)
                self.assertEqual(tokens.dtype, dtype)
                self.assertEqual(tokens.max(), vocabulary_size - 1)  # the end token

    def test_contents_do_not_depend_on_processes(self):
        # Several batches of very different work, over two files.
        texts = [f"document {index} " * (40000 if index % 7 == 0 else index) for index in range(60)]
        first = self.write("a.jsonl.xz", self.json_lines(texts[:35]))
        second = self.write("b.jsonl", self.json_lines(texts[35:]))
        one, three = (self.tokenise(first, second, processes=count) for count in (1, 3))
        self.assertEqual([part.tobytes() for part in one], [part.tobytes() for part in three])
        self.assert_documents(one, self.expected(texts, [self.eos]))

    def test_plain_text_documents(self):
        text = "first line\nsecond line\n\n \nnext paragraph\r\n"
        corpus = self.write("corpus.txt.gz", text)
        cases = {
            "file": [text],
            "paragraph": ["first line\nsecond line", "next paragraph"],
            "line": ["first line", "second line", "next paragraph"],
        }
        for unit, documents in cases.items():
            with self.subTest(unit=unit):
                result = self.tokenise("--text-documents", unit, corpus)
                self.assert_documents(result, self.expected(documents, [self.eos]))

    def test_end_tokens(self):
        corpus = self.write("corpus.jsonl", self.json_lines(TEXTS))
        self.assert_documents(self.tokenise("--no-eos", corpus), self.expected(TEXTS, []))
        bang = self.tokenizer.token_to_id("!")
        self.assert_documents(self.tokenise("--eos-token", "!", corpus), self.expected(TEXTS, [bang]))
        (self.folder / "teacher" / "tokenizer_config.json").unlink()
        self.assert_fails(corpus, says=["end-of-sequence token", "--no-eos"])
        (self.folder / "teacher" / "config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
        self.assert_documents(self.tokenise(corpus), self.expected(TEXTS, [5]))
        (self.folder / "teacher" / "config.json").write_text(json.dumps({"eos_token_id": 257}))
        self.assert_fails(corpus, says=["eos_token_id", "257"])

    def test_limits(self):
        texts = ["abcd", "efgh", "ijkl"]  # with the end token, 5 tokens each
        corpus = self.write("corpus.jsonl", self.json_lines(texts))
        documents = self.expected(texts, [self.eos])
        for limit, kept in ((3, [documents[0][:3]]), (5, documents[:1]), (7, [documents[0], documents[1][:2]])):
            with self.subTest(limit=limit):
                self.assert_documents(self.tokenise("--limit-tokens", limit, corpus), kept)
        self.assert_documents(self.tokenise("--limit-tokens", 100, corpus), documents)
        self.assert_documents(self.tokenise("--limit-documents", 2, corpus, corpus), documents[:2])
        self.assert_documents(self.tokenise("--limit-documents", 4, corpus, corpus), documents + documents[:1])

    def test_text_field(self):
        corpus = self.write("corpus.jsonl", self.json_lines(TEXTS, field="body"))
        self.assert_documents(self.tokenise("--text-field", "body", corpus), self.expected(TEXTS, [self.eos]))
        self.assert_fails(corpus, says=["line 1", '"text"', '"body"', "--text-field"])

    def test_byte_order_marks_are_no_text(self):
        mark = b"\xef\xbb\xbf"
        marked = self.write("marked.txt", mark + TEXTS[0].encode())
        self.assert_documents(self.tokenise(marked), self.expected(TEXTS[:1], [self.eos]))
        marked = self.write("marked.jsonl.gz", mark + self.json_lines(TEXTS).encode())
        self.assert_documents(self.tokenise(marked), self.expected(TEXTS, [self.eos]))
        inside = self.write("inside.txt", TEXTS[0].encode() + mark)  # a mark elsewhere is a character
        self.assertNotEqual(len(self.tokenise(inside)[0]), len(self.expected(TEXTS[:1], [self.eos])[0]))
        result = self.run_tool(self.write("wide.txt", TEXTS[0].encode("utf-16")))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "wide.txt: .*UTF-16")

    def test_faults_in_lines_are_named(self):
        good = self.json_lines(["good"])
        for line, says in (
            ("{broken", "not valid JSON"),
            ('["text"]', "no JSON object"),
            ('{"text": 3}', "no string but int"),
            ('{"text": "\\ud800"}', "surrogate"),
        ):
            for processes in (1, 3):
                with self.subTest(line=line, processes=processes):
                    corpus = self.write("corpus.jsonl", good + "\n" + good + line + "\n" + good)
                    self.assert_fails("--processes", processes, corpus, says=["corpus.jsonl: line 4", says])
        corpus = self.write("corpus.txt", "fine\nnot \xff".encode("latin-1"))
        self.assert_fails(corpus, says=["line 2 is not UTF-8"])

    def test_first_fault_is_told_whatever_the_processes(self):
        filler = self.json_lines(["x" * 700000] * 3)
        broken = self.write("a.jsonl", filler + "{one\n" + filler + "{two\n")
        damaged = self.write("b.jsonl.gz", filler)
        damaged.write_bytes(damaged.read_bytes()[:-20])
        for processes in (1, 3):
            with self.subTest(processes=processes):
                self.assert_fails("--processes", processes, broken, damaged, says=["a.jsonl: line 4"])

    def test_truncated_files(self):
        extensions = [".gz", ".xz"] + [".zst"] * (importlib.util.find_spec("zstandard") is not None)
        for extension in extensions:
            with self.subTest(extension=extension):
                lines = self.json_lines([hashlib.sha256(b"%d" % index).hexdigest() for index in range(2000)])
                corpus = self.write("corpus.jsonl" + extension, lines)
                corpus.write_bytes(corpus.read_bytes()[:-1000])
                self.assert_fails(corpus, says=[f"{corpus.name}: cannot be read after line", "is the file complete?"])

    def test_faults_in_names(self):
        corpus = self.write("corpus.jsonl", self.json_lines(TEXTS))
        self.assert_fails(corpus, self.folder / "none.jsonl", says=["none.jsonl", "file not found"])
        self.assert_fails(self.write("corpus.csv", "a"), says=['unsupported extension ".csv"', ".jsonl"])
        self.assert_fails(self.write("corpus.csv.gz", "a"), says=['unsupported extension ".csv.gz"'])
        self.assert_fails(self.write("empty.jsonl", "\n"), says=["empty.jsonl", "no tokens"])
        self.assert_fails(corpus, "--tokenizer", self.folder / "none", says=["none", "no such folder"])
        self.assert_fails(corpus, "--output", self.folder / "none" / "tokens.h5", says=["none", "no such folder"])

    def test_existing_output_is_kept(self):
        corpus = self.write("corpus.jsonl", self.json_lines(TEXTS))
        self.output.write_bytes(b"precious")
        result = self.run_tool(corpus)
        self.assertEqual(result.returncode, 1)
        self.assertIn("exists already", result.stderr)
        self.assertEqual(self.output.read_bytes(), b"precious")


if __name__ == "__main__":
    unittest.main()
