# SPDX-License-Identifier: Apache-2.0
"""Trains the built-in teacher, a small Llama that recalls, on fresh text.

The curriculum follows the measured recall: repeated sequences and bare facts
first (they make induction heads), then mostly the text itself, and only then
is the learning rate lowered.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import make_corpus
import vocabulary
from check_teacher import measure, measure_without_layers, print_measures

# Share of repeated sequences, share of bare facts, weight of recall answers in
# the loss; the rest is text. The last stage has the mixture of train.h5.
STAGES = {
    "form": (0.4, 0.3, 4.0),
    "spread": (0.15, 0.1, 4.0),
    "settle": (0.1, 0.0, 1.0),
}
RECALL_TO_SPREAD = 0.5
RECALL_TO_SETTLE = 0.95
# Without enough recall by this share of the time, settle nevertheless.
LATEST_SETTLE = 0.65
EVALUATE_EVERY = 250
WARM_UP_STEPS = 300
SMALLEST_RATE = 0.02
CHECK_DOCUMENTS = 50


class FreshText(torch.utils.data.IterableDataset):
    """Endless batches of tokens and answer masks; `stage` is a tensor shared
    with the workers that holds the shares of the current mixture."""

    def __init__(self, batch, seed, stage):
        self.batch, self.seed, self.stage = batch, seed, stage

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = worker.id if worker else 0
        rng = np.random.default_rng([self.seed, number])
        while True:
            repeats, dense = self.stage.tolist()
            tokens, answers = make_corpus.make_mixture(
                rng, self.batch, repeats, dense
            )
            yield torch.from_numpy(tokens.astype(np.int32)), answers


def build_model(arguments):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(vocabulary.WORDS),
        hidden_size=arguments.hidden,
        intermediate_size=3 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        pad_token_id=vocabulary.PAD,
        bos_token_id=vocabulary.BOS,
        eos_token_id=vocabulary.EOS,
    )
    torch.manual_seed(arguments.seed)
    return LlamaForCausalLM(config)


def make_loss(model, device):
    def loss(tokens, weights):
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(input_ids=tokens, use_cache=False).logits
        token_loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1),
            tokens[:, 1:].flatten(),
            reduction="none",
        )
        weights = weights[:, 1:].flatten()
        return (token_loss * weights).sum() / weights.sum()

    return loss


def train(model, arguments, device, validation):
    """Trains in place; returns the tokens seen and the seconds taken."""
    stage_name = "form"
    shares = torch.tensor(STAGES[stage_name][:2]).share_memory_()
    batches = iter(
        torch.utils.data.DataLoader(
            FreshText(arguments.batch, arguments.seed, shares),
            batch_size=None,
            num_workers=arguments.workers,
            pin_memory=device.type == "cuda",
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=torch.tensor(arguments.rate, device=device)
        if device.type == "cuda"
        else arguments.rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=device.type == "cuda",
    )
    loss_of = make_loss(model, device)
    if device.type == "cuda":
        loss_of = torch.compile(loss_of)

    start = time.time()
    settled_at = None
    step = 0
    while step < arguments.steps:
        elapsed = time.time() - start
        if elapsed >= arguments.seconds:
            break
        rate = arguments.rate * min(1, (step + 1) / WARM_UP_STEPS)
        if settled_at is not None:
            settle_for = min(
                arguments.settle_seconds, arguments.seconds - settled_at
            )
            progress = (elapsed - settled_at) / settle_for
            if progress >= 1:
                break
            rate *= SMALLEST_RATE + (1 - SMALLEST_RATE) * (1 - progress)
        for group in optimizer.param_groups:
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

        tokens, answers = next(batches)
        tokens = tokens.to(device, non_blocking=True).long()
        mask = torch.as_tensor(answers).to(device, non_blocking=True)
        weights = 1 + (STAGES[stage_name][2] - 1) * mask.float()
        loss = loss_of(tokens, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1

        if step % EVALUATE_EVERY == 0 or step == 1:
            part = [a[:CHECK_DOCUMENTS] for a in validation]
            measures = measure(model, *part)
            seen = step * arguments.batch * make_corpus.DOCUMENT_LENGTH
            print_measures(
                f"{time.time() - start:6.1f} s, step {step}, {seen / 1e6:.1f} M "
                f"tokens, {stage_name}, rate {rate:.1e}: training loss "
                f"{loss.item():.3f}, validation",
                measures,
            )
            recall = measures[2]
            late = elapsed > LATEST_SETTLE * arguments.seconds
            if stage_name == "form" and recall >= RECALL_TO_SPREAD:
                stage_name = "spread"
            if stage_name != "settle" and (recall >= RECALL_TO_SETTLE or late):
                stage_name = "settle"
                settled_at = time.time() - start
            shares.copy_(torch.tensor(STAGES[stage_name][:2]))
    seen = step * arguments.batch * make_corpus.DOCUMENT_LENGTH
    return seen, time.time() - start


def save(model, folder):
    """Writes the Hugging Face folder; the model must be bf16 already."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        for path in Path(scratch).iterdir():
            shutil.copyfile(path, folder / path.name)
    # Readers of configs written before rope_parameters want the plain field.
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    vocabulary.write_tokenizer(folder)


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=here / "teacher")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--settle-seconds", type=float, default=100)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=128, help="documents")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    model = build_model(arguments).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters on {device.type}", flush=True)
    validation = make_corpus.make_documents(
        np.random.default_rng(make_corpus.VALIDATION_SEED), 250
    )
    seen, seconds = train(model, arguments, device, validation)
    print(f"{seen / 1e6:.1f} M tokens in {seconds:.0f} s", flush=True)

    model = model.to(torch.bfloat16)
    save(model, arguments.output)
    # What is measured is what was saved: rounded weights, float arithmetic.
    model = model.float().eval()
    print_measures("final", measure(model, *validation))
    part = [a[:CHECK_DOCUMENTS] for a in validation]
    for layer, measures in enumerate(measure_without_layers(model, *part)):
        print_measures(f"without layer {layer}", measures)


if __name__ == "__main__":
    main()
