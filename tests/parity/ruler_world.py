# SPDX-License-Identifier: Apache-2.0
"""All that RULER's tasks need, of our own making and small: a teacher with a byte-level tokenizer, essays, questions in the
formats of SQuAD and HotpotQA, and an empty punkt_tab (a sentence splitter that knows no abbreviations)."""
import json
import random

import torch
import wonderwords
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2000
WORDS = ("river stone lamp garden winter letter engine harbour music mountain paper window bridge silver morning market "
         "shadow copper field island ladder mirror needle orchard pepper quarry ribbon saddle timber valley").split()


def sentence(source):
    return " ".join(source.choice(WORDS) for _ in range(9)).capitalize() + "."


def write_tokenizer(folder):
    source = random.Random(0)
    texts = [sentence(source) for _ in range(500)]
    texts += ["Some special magic numbers are hidden within the following text. Question: Answer: Document VAR = "] * 20
    texts += ["The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."] * 20
    texts += [" ".join(words) for words in wonderwords.RandomWord()._categories.values()]  # RULER's keys and lists
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<pad>", "<bos>", "<eos>", "<end>"],
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                             show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>",
                            eos_token="<eos>").save_pretrained(folder)


def write_teacher(folder):
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.eos_token_id = [2, 3]  # as chat models have it
    model.save_pretrained(folder)
    write_tokenizer(folder)


def write_texts(folder):
    source = random.Random(1)
    (folder / "essays.txt").write_text(" ".join(sentence(source) for _ in range(400)))
    articles = [{"title": f"Place_{place}", "paragraphs": [{
        "context": f"In place {place}, chapter {part}. {sentence(source)} The colour is shade{place}x{part}.",
        "qas": [{"question": f"Which colour is in place {place}, chapter {part}?", "is_impossible": False,
                 "answers": [{"text": f"shade{place}x{part}"}]}]} for part in range(3)]} for place in range(20)]
    (folder / "squad.json").write_text(json.dumps({"data": articles}))
    facts = [[f"Fact {fact}", [sentence(source), f" It was found in {1900 + fact}."]] for fact in range(40)]
    asked = [{"question": f"When was fact {fact} found?", "answer": str(1900 + fact), "context": facts[fact : fact + 6]}
             for fact in range(30)]
    (folder / "hotpot.json").write_text(json.dumps(asked))
    punkt = folder / "nltk/tokenizers/punkt_tab/english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")


def ruler_arguments(texts):
    return ["--essays", str(texts / "essays.txt"), "--squad", str(texts / "squad.json"), "--hotpot", str(texts / "hotpot.json"),
            "--nltk-data", str(texts / "nltk")]
