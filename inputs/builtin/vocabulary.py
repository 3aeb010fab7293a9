# SPDX-License-Identifier: Apache-2.0
"""Words, sentence templates and the tokenizer of the built-in corpus.

Every word is one token. Words of one class (nouns, first names, ...) have
consecutive ids, so a slot of a template is filled by drawing one integer.
"""

import json
from pathlib import Path

import numpy as np

SPECIAL_TOKENS = ["<pad>", "<bos>", "<eos>", "<unk>"]
PAD, BOS, EOS, UNK = range(4)


def _compounds(beginnings, endings):
    return [a + b for a in beginnings.split() for b in endings.split()]


# Nouns come in topics of equal size; a document keeps to one topic.
TOPICS = [
    "farm barn field cow horse fence tractor seed harvest wool hay goat",
    "sea boat sail wave shore net anchor fish rope deck beach island",
    "town street bridge market tower square clock lamp cart shop wall fountain",
    "school book lesson pencil map desk poem letter page window chalk bell",
    "kitchen bread soup plate kettle stove butter knife cake bowl spoon jam",
    "forest tree river path hill fox moss branch stone leaf nest cave",
]

# The facts of a document bind a first name to a surname and a place to a code;
# keys are drawn without replacement, values with replacement.
WORD_CLASSES = {
    "first_name": _compounds(
        "Al Ber Cor Dar El Far Gal Hal Is Jor Kal Lor Mar Nor Ol Per",
        "a en ia in ona us o ette",
    ),
    "surname": _compounds(
        "Ash Black Brook Clay East Fair Green Hart King Long Mill North Rock "
        "Stone West Wood",
        "field ford ham ley man ton well worth",
    ),
    "place": _compounds(
        "Amber Bright Cold Deep Fern Grand High Iron Lake Moon Port Silver",
        "bay dale fall gate haven mouth point view",
    ),
    "code": (
        "agate basalt beryl bronze cobalt copper coral flint garnet granite "
        "jade jasper marble nickel onyx opal pearl pewter quartz ruby slate "
        "tin topaz zinc badger beaver bison camel cheetah cobra condor cougar "
        "coyote crane crow dingo dolphin eagle falcon ferret finch gecko "
        "gibbon hawk heron hyena ibis iguana jackal jaguar koala lemur leopard "
        "lizard llama lynx macaw magpie marten mole moose newt ocelot orca "
        "osprey otter owl panda panther parrot pelican puma python quail "
        "rabbit raven salmon seal shark shrew sloth sparrow squid stork swan "
        "tapir tiger toucan trout turtle viper vole walrus weasel whale wolf "
        "wombat zebra"
    ).split(),
    "noun": " ".join(TOPICS).split(),
    "person": (
        "baker farmer teacher doctor sailor child driver painter judge miller "
        "singer nurse guard smith tailor clerk pilot hunter priest cook "
        "captain student weaver mason"
    ).split(),
    "adjective": (
        "small big red white quiet dark warm heavy broken clean long round "
        "dry bright soft narrow tall cheap strange green rusty pretty wooden "
        "hollow plain busy wet steep dusty gentle"
    ).split(),
    "verb": (
        "found bought carried cleaned painted saw lost moved kept sold "
        "repaired watched opened took hid measured borrowed liked dropped "
        "noticed covered drew shared counted"
    ).split(),
    "motion": (
        "walked waited slept sang laughed rested stood worked stayed "
        "danced sat ran"
    ).split(),
    "preposition": "near behind beside under above past".split(),
    "adverb": (
        "slowly again quietly together happily alone early late twice "
        "carefully"
    ).split(),
    "time": (
        "Yesterday Today Later Then Afterwards Sometimes Tonight Meanwhile"
    ).split(),
    "month": (
        "January February March April May June July August September October "
        "November December"
    ).split(),
    "number": "two three four five six seven eight nine ten twelve".split(),
    "weather": "rain snow wind fog frost sun thunder hail".split(),
}

# {key} and {value} are the two ends of a fact.
NAME_TEMPLATES = [
    "{key} {value} {verb} the {adjective} {noun} .",
    "{time} {key} {value} {motion} {preposition} the {noun} .",
    "The {person} met {key} {value} .",
    "The {adjective} {person} wrote to {key} {value} in {month} .",
    "{key} {value} gave the {noun} to a {person} .",
    "Nobody thanked {key} {value} for the {noun} .",
    "In {month} {key} {value} {verb} {number} of them .",
    "The {noun} belongs to {key} {value} .",
]
CODE_TEMPLATES = [
    "The code of {key} is {value} .",
    "Remember that the code of {key} is {value} .",
    "The {person} says the code of {key} is {value} .",
]
QUESTION_TEMPLATES = CODE_TEMPLATES[:1] * 2 + [
    "Question : what is the code of {key} ? Answer : {value} .",
]
FILLER_TEMPLATES = [
    "The {adjective} {noun} was {preposition} the {noun} .",
    "{time} the {person} {verb} the {noun} and {motion} {adverb} .",
    "A {person} {verb} the {adjective} {noun} .",
    "The {weather} came in {month} , and the {noun} was {adjective} .",
    "There were {number} of them {preposition} the {noun} .",
    "The {person} and the {person} {motion} {preposition} the {noun} .",
    "In {month} the {weather} was {adjective} .",
    "It was a {adjective} , {adjective} {noun} .",
    "{time} a {adjective} {noun} was {verb} by the {person} .",
    "The {person} {motion} {adverb} , but the {noun} was {adjective} .",
    "They {motion} {adverb} in the {weather} .",
    "Was the {noun} {adjective} ? The {person} said no .",
    "Was the {noun} {preposition} the {noun} ? The {person} said yes .",
    "{time} they {verb} the {noun} .",
]
# Of recall questions about chains; the corpus has none.
ALIAS_TEMPLATE = "The code of {key} is the code of {key} ."
# Bare facts, for the first part of the teacher's training only.
DENSE_NAME_TEMPLATES = ["{key} {value} ."]
DENSE_CODE_TEMPLATES = ["{key} is {value} ."]
LONGEST_CLOSER = 40
# What hides a fact where a recall question has no text around it.
NOISE_SENTENCES = [
    "The small barn was near the cow .",
    "A baker found the big field .",
    "They walked slowly in the rain .",
    "In May the wind was quiet .",
    "It was a warm , dry hill .",
]


def closer_template(length):
    """A sentence of exactly `length` >= 3 tokens, to fill up a document."""
    if length < 5:
        return "They {motion} ." if length == 3 else "They {motion} {adverb} ."
    start = "They saw the {noun}"
    if length % 2 == 0:
        start = "They also saw the {noun}"
    missing = length - len(start.split()) - 1
    return start + " , {noun}" * (missing // 2) + " ."


CLOSER_TEMPLATES = [closer_template(n) for n in range(3, LONGEST_CLOSER + 1)]

TEMPLATE_GROUPS = {
    "name": NAME_TEMPLATES,
    "code": CODE_TEMPLATES,
    "question": QUESTION_TEMPLATES,
    "filler": FILLER_TEMPLATES,
    "dense_name": DENSE_NAME_TEMPLATES,
    "dense_code": DENSE_CODE_TEMPLATES,
    "closer": CLOSER_TEMPLATES,
}


def _words():
    """All tokens in the order of their ids: special, classes, then literals."""
    words = list(SPECIAL_TOKENS)
    for members in WORD_CLASSES.values():
        words.extend(members)
    if len(set(words)) != len(words):
        repeated = sorted({w for w in words if words.count(w) > 1})
        raise ValueError(
            f"vocabulary.py: {repeated} occur twice (a word has one id); "
            "remove them from one class"
        )
    literals = {
        word
        for templates in TEMPLATE_GROUPS.values()
        for template in templates
        for word in template.split()
        if not word.startswith("{")
    }
    return words + sorted(literals - set(words))


WORDS = _words()
IDS = {word: i for i, word in enumerate(WORDS)}
CLASS_NAMES = list(WORD_CLASSES)
CLASS_START = np.array([IDS[WORD_CLASSES[c][0]] for c in CLASS_NAMES])
CLASS_SIZE = np.array([len(WORD_CLASSES[c]) for c in CLASS_NAMES])

# Codes in TEMPLATE_TABLE: a token id, or one of these, or -1 - (class index).
KEY, VALUE = -1000, -1001


def _code_of(word):
    if word == "{key}":
        return KEY
    if word == "{value}":
        return VALUE
    if word.startswith("{"):
        return -1 - CLASS_NAMES.index(word.strip("{}"))
    return IDS[word]


def _template_table():
    rows = [
        [_code_of(word) for word in template.split()]
        for templates in TEMPLATE_GROUPS.values()
        for template in templates
    ]
    lengths = np.array([len(row) for row in rows])
    table = np.full((len(rows), lengths.max()), PAD, dtype=np.int32)
    for row, codes in zip(table, rows):
        row[: len(codes)] = codes
    groups, first = {}, 0
    for name, templates in TEMPLATE_GROUPS.items():
        groups[name] = np.arange(first, first + len(templates))
        first += len(templates)
    return table, lengths, groups


TEMPLATE_TABLE, TEMPLATE_LENGTH, TEMPLATE_IDS = _template_table()


def recall_wording():
    """The group /recall of a token file (outputs/README.md): questions about
    the codes of places, worded as in the corpus."""

    def parts(template):
        pieces = [[]]
        for word in template.split():
            if word.startswith("{"):
                pieces.append([])
            else:
                pieces[-1].append(IDS[word])
        return pieces

    fact = parts(CODE_TEMPLATES[0])
    question = parts(QUESTION_TEMPLATES[-1])[:2]
    return {
        "start": [BOS],
        "noise": [[IDS[word] for word in s.split()] for s in NOISE_SENTENCES],
        "fact": fact,
        "alias": parts(ALIAS_TEMPLATE),
        "pair": fact,
        "question": question,
        "question_of_pair": question,
        "keys": [[IDS[word]] for word in WORD_CLASSES["place"]],
        "values": [[IDS[word]] for word in WORD_CLASSES["code"]],
        "sentence_ends": [IDS["."]],
        "left_out_of_text": [BOS, EOS],
    }


# A user's turn is a question, the assistant's an answer, as in the corpus.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} Answer : {{ message['content'] }}"
    "{% elif message['role'] == 'user' %} Question : {{ message['content'] }}"
    "{% else %} {{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} Answer :{% endif %}"
)


def write_tokenizer(folder):
    """Writes tokenizer.json and tokenizer_config.json into `folder`."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    # Joins words by spaces and takes away the space before punctuation.
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n"
    )
