# SPDX-License-Identifier: Apache-2.0
"""The tokenizer in a Hugging Face model folder."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from corpus_files import CorpusError


def load_tokenizer(folder: Path) -> str:
    """The text of tokenizer.json, made by transformers if the folder has only an older form."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes().decode("utf-8")  # no change of line ends: its hash is the file's
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder (--tokenizer takes a Hugging Face model folder)")
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    except Exception as error:  # whatever transformers says about a folder it cannot use
        reason = str(error).partition("\n")[0]
        raise CorpusError(f"{folder}: no tokenizer.json, and transformers cannot make one ({reason})") from error


def end_token(folder: Path, tokenizer: Tokenizer, vocabulary_size: int, wanted: str | None) -> int:
    """The id of the token that ends documents: the one named, or the tokenizer's, or the model's own."""
    token = wanted or read_json(folder / "tokenizer_config.json").get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is not None:
        token_id = tokenizer.token_to_id(token)
        if token_id is None:
            raise CorpusError(f'{folder}: the tokenizer has no token "{token}" (it should end the documents)')
        return token_id
    token_id = read_json(folder / "config.json").get("eos_token_id")
    if isinstance(token_id, list):
        token_id = token_id[0]
    if token_id is None:
        raise CorpusError(
            f"{folder}: names no end-of-sequence token (it ends every document); give --eos-token or --no-eos"
        )
    if not 0 <= token_id < vocabulary_size:
        raise CorpusError(
            f'{folder}/config.json: "eos_token_id" is {token_id} but the tokenizer has {vocabulary_size} tokens; '
            "give --eos-token or --no-eos"
        )
    return token_id


def read_json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{path}: not valid JSON ({error})") from error


def parse_tokenizer(folder: Path, tokenizer_json: str) -> tuple[Tokenizer, int]:
    """The tokenizer and the size of its vocabulary: the largest token id + 1."""
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # tokenizers raises plain Exception
        raise CorpusError(f"{folder / 'tokenizer.json'}: cannot be used ({error})") from error
    return tokenizer, max(tokenizer.get_vocab().values()) + 1
