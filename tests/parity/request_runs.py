# SPDX-License-Identifier: Apache-2.0
"""Answers to request files: the program's, and made-up ones."""
import h5py
import numpy as np

from amalgam_binary import checked

JOB = """
name: run
output: {folder}
device: cpu
precision: float32
threads_per_rank: 1
peak_flops: 1e12
teacher: {{path: {teacher}}}
data: {{training: {training}, validation: {validation}, allow_other_tokenizer: true}}
align: {{tokens: 0}}
score: {{tokens: 0}}
select: {{rule: uniform, budget: "1"}}
distill: {{tokens: 64, batch_sequences: 2, sequence_length: 32, optimizer: {{warmup_steps: 0}}}}
evaluate: {{sequences: 2, sequence_length: 32, requests: {requests}}}
export: {{formats: []}}
"""


def answered(folder, teacher, training, validation, requests):
    """evaluation.h5 of a run of a few steps in `folder`."""
    job = folder / "job.yaml"
    job.write_text(JOB.format(folder=folder, teacher=teacher, training=training, validation=validation, requests=requests))
    checked("run", job)
    return folder / "run/evaluation.h5"


def write_answers(path, fingerprint, models):
    """`models`: {name: one answer for each request: token ids, or (log-likelihood, is greedy)}."""
    with h5py.File(path, "w") as file:
        group = file.create_group("requests")
        group.attrs["fingerprint"] = fingerprint
        for name, answers in models.items():
            generated = [answer if isinstance(answer, list) else [] for answer in answers]
            model = group.create_group(name)
            model["loglikelihood"] = np.array([np.nan if isinstance(answer, list) else answer[0] for answer in answers])
            model["greedy"] = np.array([0 if isinstance(answer, list) else int(answer[1]) for answer in answers], dtype=np.int32)
            model["generated"] = np.array([token for tokens in generated for token in tokens], dtype=np.int32)
            model["generated_offsets"] = np.cumsum([0, *map(len, generated)])
