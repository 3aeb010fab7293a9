// SPDX-License-Identifier: Apache-2.0
// What a job will need: memory of a rank, arithmetic, time, disk. Arithmetic on sizes only, no measurement: good to a
// factor of about 1.5, meant to tell "fits" from "does not" and hours from weeks before an allocation is spent.
//
// Symbols: H hidden size, I intermediate size, V vocabulary, h query heads, g key/value heads, d head dimension, A = h
// d, s sequence length, b bytes of a number in the compute precision (4 or 2).
//
// Parameters   softmax mixer 2 H A + 2 H g d (W_q, W_o; W_k, W_v). Linear mixer 4 H A (W_q, W_k, W_v, W_o), + H A with
// output
//              gate, + 2 H h + 2 h (beta, decay), + d (norm), + 12 A with convolution. MLP 3 H I, norms 2 H per block.
//              Embedding V H, head V H unless tied. Projection biases are left out (< 0.01 %).
// Memory       trained parameters: 4 master + 4 gradient + 8 AdamW moments, + 2 for a bf16 copy where b = 2. The
// teacher: b
//              each. Parts of the student that a stage does not train are the teacher's own, so they are counted once.
//              Each rank holds all of it: data parallel, nothing sharded.
// Activations  numbers kept for the backward pass, per token of a micro-batch, without recomputation:
//              block 4 H (inputs and outputs of two norms) + 4 I (gate, up, SiLU, product)
//              linear mixer 12 A (q, k, v before and after SiLU; q, k normalised; gate, output, normed, gated) + A d /
//              64 (state at every 64th token); softmax mixer 3 A + 3 g d (q, k, v, the rotated q, k, and the output).
//              align keeps one mixer at a time: 2 H + that. Logits: 2 b V per token of a loss chunk (student and
//              teacher; 4 GiB at most where the job names no chunk), only where there is a KL or next-token loss.
// Arithmetic   forward, per token: 2 flop per parameter of blocks and head; softmax 2 A s (two products over s / 2
// tokens in
//              the causal mean); gated delta rule h (6 d^2 + 512 d) in chunks of 64. Training costs three forwards. A
//              distillation step adds one forward of the teacher. align: teacher without head, and three forwards of
//              all linear mixers.
// Time         flop / (ranks x peak x utilisation). score: candidates are dealt to ranks / ranks_per_candidate groups,
// so its
//              time is that of the largest number of candidates in one group.
// Checkpoint   4 bytes per student parameter + 8 per trained one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "job/job.h"
#include "job/job_check.h"

namespace amalgam {

struct Machine {
    int64_t ranks = 1;
    double memory_per_rank = 0;  // bytes; 0: unknown
    double peak_flops = 989e12;  // flop/s of a rank in the compute precision; default: one H100, dense bfloat16
    double utilisation = 0.35;   // assumed fraction of it
};

struct StageEstimate {
    std::string name;
    int64_t steps = 0;
    int64_t micro_batch_sequences = 0;  // of one rank in one forward; 0: not a training stage
    double tokens = 0;                  // trained on, over all candidates
    double trained_bytes = 0;           // masters, gradients, moments, copies
    double teacher_bytes = 0;
    double activation_bytes = 0;  // with logits
    double flops = 0;             // over all ranks
    double seconds = 0;
    double checkpoint_bytes = 0;  // one file; 0: the stage writes none

    double memory_bytes() const { return trained_bytes + teacher_bytes + activation_bytes; }
};

struct Estimate {
    double teacher_parameters = 0;
    double student_parameters = 0;  // of the selected hybrid
    int64_t kept_layers = 0;
    std::vector<StageEstimate> stages;  // that the job runs, in order
    double flops = 0;
    double seconds = 0;
    double disk_bytes =
        0;  // of the run folder at its fullest: all kept checkpoints, one being written, exported students
};

/// Throws Error(bad_input) if select.budget is not understood; otherwise any job that read_job accepts is estimated.
Estimate estimate_job(const Job& job, const ModelShape& shape, const Machine& machine);

/// Bytes of a number in the compute precision of the job: auto counts as bfloat16 unless the device is the CPU.
int64_t compute_bytes(const Job& job);

}  // namespace amalgam
