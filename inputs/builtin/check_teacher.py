# SPDX-License-Identifier: Apache-2.0
"""Measures a teacher on a token file: loss, recall accuracy, and both with the
attention of one layer at a time set to zero."""

import argparse
from pathlib import Path

import numpy as np
import torch

SEQUENCE_LENGTH = 512
BATCH = 25


@torch.no_grad()
def measure(model, tokens, answers):
    """Mean next-token loss (nats), the same at recall answers, and the share
    of recall answers that are the argmax; tokens and answers (n, 512)."""
    device = next(model.parameters()).device
    loss, answer_loss, right = 0.0, 0.0, 0
    for first in range(0, len(tokens), BATCH):
        batch = torch.from_numpy(tokens[first : first + BATCH].astype(np.int64))
        mask = torch.from_numpy(answers[first : first + BATCH, 1:]).to(device)
        batch = batch.to(device)
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
        targets = batch[:, 1:]
        token_loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, reduction="none"
        )
        loss += token_loss.sum().item()
        answer_loss += token_loss[mask].sum().item()
        right += (logits.argmax(-1) == targets)[mask].sum().item()
    count = answers[:, 1:].sum()
    predicted = tokens.shape[0] * (tokens.shape[1] - 1)
    return loss / predicted, answer_loss / count, right / count


def measure_without_layers(model, tokens, answers):
    """`measure` for each layer's attention output set to zero, in order."""

    def zero_output(module, inputs, output):
        return (torch.zeros_like(output[0]), *output[1:])

    results = []
    for layer in model.model.layers:
        hook = layer.self_attn.register_forward_hook(zero_output)
        results.append(measure(model, tokens, answers))
        hook.remove()
    return results


def read_tokens(path):
    """Tokens and answer mask (documents, 512) of a built-in token file."""
    import h5py

    with h5py.File(path, "r") as file:
        tokens = file["tokens"][:]
        answers = np.zeros(len(tokens), bool)
        answers[file["answer_positions"][:]] = True
    shape = (-1, SEQUENCE_LENGTH)
    return tokens.reshape(shape), answers.reshape(shape)


def print_measures(name, measures):
    loss, answer_loss, recall = measures
    print(
        f"{name:<18} loss {loss:.4f}  loss at answers {answer_loss:.4f}  "
        f"recall {recall:.4f}",
        flush=True,
    )


def main():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, default=here / "teacher")
    parser.add_argument("--tokens", type=Path, default=here / "validation.h5")
    parser.add_argument(
        "--ablation-documents",
        type=int,
        default=50,
        help="documents used for the layer by layer ablation",
    )
    arguments = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(
        arguments.teacher, dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.teacher)
    tokens, answers = read_tokens(arguments.tokens)
    print_measures(
        f"all {len(tokens)} documents", measure(model, tokens, answers)
    )
    part = slice(0, arguments.ablation_documents)
    for layer, measures in enumerate(
        measure_without_layers(model, tokens[part], answers[part])
    ):
        print_measures(f"without layer {layer}", measures)

    # A chat in which the fact is 128 tokens of a real document ago.
    facts = "The code of Moongate is otter . " + tokenizer.decode(
        tokens[0, 1:128]
    )
    prompt = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": facts},
            {"role": "user", "content": "what is the code of Moongate ?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    torch.manual_seed(0)
    text = model.generate(**ids, max_new_tokens=40, do_sample=True)
    new = text[0, ids["input_ids"].shape[1] - 11 :]
    print("...", tokenizer.decode(new, skip_special_tokens=True))


if __name__ == "__main__":
    main()
