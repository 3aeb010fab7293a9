# SPDX-License-Identifier: Apache-2.0
"""The bytes of tokens make up those of the text, wherever the tokenizer cuts it. Skipped where tokenizers is not installed."""
import importlib.util
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

TEXT = "A café, naïve: 雪 and 🦊!\n\nQuestion: 1 + 1 = 2 .<end>"


@unittest.skipUnless(importlib.util.find_spec("transformers"), "transformers is not installed")
class TokenBytes(unittest.TestCase):
    def byte_level(self):
        """Learnt from ASCII alone: every other character is cut into bytes."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(["Question: and a cafe"] * 3, trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        return tokenizer

    def byte_fallback(self):
        from tokenizers import Tokenizer, decoders, models, normalizers
        pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581and", *map(chr, range(0x21, 0x7F))]
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                               decoders.Strip(" ", 1, 0)])
        return tokenizer

    def wrapped(self, tokenizer, **options):
        from transformers import PreTrainedTokenizerFast
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<end>"], **options)

    def test_bytes_of_tokens_are_those_of_the_text(self):
        from token_bytes import token_bytes
        for make in (self.byte_level, self.byte_fallback):
            tokenizer = self.wrapped(make())
            ids = tokenizer.encode(TEXT)
            known = token_bytes(tokenizer)
            self.assertEqual(b"".join(known[place] for place in ids), TEXT.encode(), make.__name__)
            texts = [tokenizer.decode([place]) for place in ids]
            self.assertFalse(any("é" in text for text in texts), "no single token has the character: it is cut")
            self.assertEqual(known[tokenizer.convert_tokens_to_ids("<end>")], b"<end>")

    def test_which_tokenizers_keep_all_spaces(self):
        from token_bytes import keeps_spaces
        self.assertTrue(keeps_spaces(self.wrapped(self.byte_level(), clean_up_tokenization_spaces=False)))
        self.assertFalse(keeps_spaces(self.wrapped(self.byte_level(), clean_up_tokenization_spaces=True)))
        self.assertFalse(keeps_spaces(self.wrapped(self.byte_fallback(), clean_up_tokenization_spaces=False)))

    def test_words_stand_apart(self):
        from tokenizers import Tokenizer, decoders, models
        from token_bytes import token_bytes
        tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
        tokenizer.decoder = decoders.WordPiece()
        self.assertEqual(token_bytes(self.wrapped(tokenizer))[1:3], [b" a", b"b"])
        tokenizer.decoder = decoders.CTC()
        self.assertIsNone(token_bytes(self.wrapped(tokenizer)), "of other kinds nothing is known")


if __name__ == "__main__":
    unittest.main()
