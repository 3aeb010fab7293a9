# SPDX-License-Identifier: Apache-2.0
"""The bytes that every token of a tokenizer stands for. A token may be a part of a character, whose text would be lost."""
import json
import re


def byte_of_characters():
    """How byte-level tokenizers write bytes: what prints in Latin-1 as itself, all others from U+0100 on, in order."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def kinds_within(part):
    """Names of all steps of a tokenizer's decoder."""
    if isinstance(part, dict):
        return {part.get("type")}.union(*map(kinds_within, part.values()))
    return set().union(*map(kinds_within, part)) if isinstance(part, list) else set()


def decoder_kinds(tokenizer):
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return kinds_within(json.loads(backend.to_str())["decoder"]) if backend else set()


def keeps_spaces(tokenizer):
    """Whether no space of the bytes is missing in the text: some tokenizers drop the first, or those before punctuation."""
    return "ByteLevel" in decoder_kinds(tokenizer) and not getattr(tokenizer, "clean_up_tokenization_spaces", False)


def token_bytes(tokenizer):
    """A bytes object for every id, or None if the tokenizer is of an unknown kind."""
    kinds = decoder_kinds(tokenizer)
    if not kinds & {"ByteLevel", "Metaspace", "ByteFallback", "WordPiece"}:
        return None
    characters = byte_of_characters()
    added = {place: text for text, place in tokenizer.get_added_vocab().items()}

    def bytes_of(place, piece):
        if place in added or piece is None:
            return added.get(place, "").encode()
        if "ByteLevel" in kinds:
            return bytes(characters[character] for character in piece)
        if "WordPiece" in kinds:
            return (piece[2:] if piece.startswith("##") else " " + piece).encode()
        byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()

    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [bytes_of(place, piece) for place, piece in enumerate(pieces)]
