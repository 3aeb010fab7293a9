# SPDX-License-Identifier: Apache-2.0
"""Compares the written SmolLM2 folder with what transformers itself reads from the GGUF file.

Tensors must agree bit for bit after rounding to bf16, logits on the same bf16 weights too, and the language model loss
on a piece of plain English must be that of a model that knows English, which no comparison of two readers can tell.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

CONFIG_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
TEXT = (
    "Water boils when its vapour pressure equals the pressure of the air around it. On a high mountain the air is "
    "thinner, so water boils at a lower temperature, and food takes longer to cook. At sea level it boils at about "
    "100 degrees Celsius, which is the same as 212 degrees Fahrenheit."
)
LARGEST_LOSS = 3.5  # nats per token; a 135M model has about 2 to 3 on such text, a wrongly rotated one above 6
# The same arithmetic on the same weights: zero but for sums that a library takes in another order.
LARGEST_LOGIT_DIFFERENCE = 2e-5
QUESTION = "What is the capital of France?"


def check_folder(gguf_path: Path, folder: Path) -> bool:
    """Prints the figures; true if everything agrees."""
    logging.disable_progress_bar()
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # In this order: check_logits rounds the weights of theirs.
    results = [
        check_config(ours.config, theirs.config),
        check_tensors(ours.state_dict(), theirs.state_dict()),
        check_logits(ours, theirs, tokenizer),
        check_loss(ours, tokenizer),
        check_answer(ours, tokenizer),
    ]
    passed = all(results)
    print("check passed" if passed else "check FAILED")
    return passed


def check_config(ours, theirs) -> bool:
    different = [name for name in CONFIG_FIELDS if getattr(ours, name) != getattr(theirs, name)]
    for name in different:
        print(f"config: {name} is {getattr(ours, name)}, transformers has {getattr(theirs, name)}")
    rotary = ours.rope_parameters["rope_theta"] == theirs.rope_parameters["rope_theta"]
    # transformers keeps the float32 of the GGUF file, we write the decimal number that was meant.
    epsilon = abs(ours.rms_norm_eps - theirs.rms_norm_eps) < 1e-6 * theirs.rms_norm_eps
    print(
        f"config: rope_theta {ours.rope_parameters['rope_theta']:g}, rms_norm_eps {ours.rms_norm_eps:g}, "
        f"{len(CONFIG_FIELDS) - len(different)} of {len(CONFIG_FIELDS)} other fields equal"
    )
    return not different and rotary and epsilon


def check_tensors(ours: dict, theirs: dict) -> bool:
    if ours.keys() != theirs.keys():
        print(f"tensors: names differ: {sorted(ours.keys() ^ theirs.keys())[:5]}")
        return False
    unequal = [name for name in ours if not torch.equal(ours[name], theirs[name].to(torch.bfloat16).float())]
    rounding = max(
        ((ours[name] - theirs[name]).abs() / theirs[name].abs().clamp_min(1e-30)).max().item() for name in ours
    )
    print(
        f"tensors: {len(ours) - len(unequal)} of {len(ours)} equal after rounding to bf16; "
        f"largest relative rounding {rounding:.2e} (bf16 allows {2**-8:.2e})"
    )
    for name in unequal[:5]:
        print(f"tensors: {name} differs")
    return not unequal and rounding <= 2**-8


@torch.no_grad()
def check_logits(ours, theirs, tokenizer) -> bool:
    """Both models in float32: on the same bf16 weights (must be equal), and on the unrounded ones (for information)."""
    tokens = tokenizer(TEXT, return_tensors="pt").input_ids
    logits = ours(tokens).logits
    unrounded = theirs(tokens).logits
    for parameter in theirs.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    rounded = theirs(tokens).logits
    difference = (logits - rounded).abs().max().item()
    divergence = (
        torch.nn.functional.kl_div(logits.log_softmax(-1), unrounded.log_softmax(-1), reduction="none", log_target=True)
        .sum(-1)
        .mean()
        .item()
    )
    print(
        f"logits: largest difference {difference:.2e} on equal bf16 weights (largest logit {logits.abs().max():.1f}); "
        f"KL divergence of the bf16 from the unrounded weights {divergence:.2e} nats per token"
    )
    return difference <= LARGEST_LOGIT_DIFFERENCE


@torch.no_grad()
def check_loss(model, tokenizer) -> bool:
    tokens = tokenizer(TEXT, return_tensors="pt").input_ids
    loss = model(tokens, labels=tokens).loss.item()
    print(f"loss on plain English: {loss:.3f} nats per token over {tokens.shape[1]} tokens (limit {LARGEST_LOSS})")
    return loss < LARGEST_LOSS


@torch.no_grad()
def check_answer(model, tokenizer) -> bool:
    chat = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    print(f"answer to {QUESTION!r}: {answer.strip()!r}")
    return "Paris" in answer
