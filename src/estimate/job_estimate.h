// SPDX-License-Identifier: Apache-2.0
// What a job will need: memory of a rank for every way of sharding, bytes moved, arithmetic, time, disk. Arithmetic on
// sizes only, no measurement: good to a factor of about 1.5 in time, meant to tell "fits" from "does not" and hours
// from weeks before an allocation is spent. Formulas: model_sizes.h (parameters, flop, activations),
// sharding_estimate.h (memory of a rank, traffic), and these:
//
// Activations  distill, score, finetune: of all blocks (with sharding.activations: recompute b H of each, and all of
//              one), and the hidden states with their gradient and the teacher's, 3 b H per token. align: of one mixer
//              at a time, 6 b A of its gradients, and 2 b H + 12 H of teacher's and student's outputs. Forward passes
//              over held-out sequences and recall questions (score, evaluate): of one block. Of the tokens of a piece
//              where ranks share sequences (sharding.context), and there what they have of each other's: the keys and
//              values before a piece, 2 b (key and value heads) d per token, layer with softmax whose backward pass
//              follows and two layers more; where they share causal attention evenly, b (query heads) d per token of
//              half of the queries of this piece and of later ones (three times that with a backward pass) and of half
//              of those before, and with recompute the outputs of a piece per layer with softmax.
// Logits       b V of student and teacher per token of a loss chunk (on GPUs 4 GiB where the job names no chunk), and
//              except for bf16 on GPUs the head's gradient of a chunk, b V H. Only where there is a KL or next-token
//              loss.
//              Of the phase whose micro-batches have most tokens.
// Arithmetic   a distillation step is three forwards of the student (and the blocks once more if recomputed) and one of
//              the teacher; align: teacher without head, and three forwards of all linear mixers.
// Time         flop / (ranks x peak x utilisation). score: candidates are dealt to ranks / ranks_per_candidate groups,
//              so its time is that of the largest number of candidates in one group. A race for learning rates counts
//              with the tokens that it may take (job/learning_rate_trials.h). Checkpoints: bytes / (nodes x
//              bandwidth of a node).
//              Recall questions cost one forward pass of teacher and student over their tokens, without the head;
//              so do the contexts and continuations of requests, and prompts. A generated token counts as one forward
//              pass of it, and its step takes as long as tokens_of_a_step of a prompt (request_counts.h); answers are
//              taken to be as long as they may be.
// Requests     activations of one block for a batch of judged tokens, or for a chunk of prompts beside the cache of the
//              longest sequence: caches take what memory is free, and need that of one.
// Checkpoint   4 bytes per student parameter + 8 per trained one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "estimate/request_counts.h"
#include "estimate/sharding_estimate.h"
#include "job/job.h"
#include "specification/model_config.h"

namespace amalgam {

struct Machine {
    int64_t ranks = 1;
    double memory_per_rank = 0;                         // bytes; 0: unknown
    std::string device = "an H100, by its data sheet";  // that a rank computes with, for people
    bool cpu = false;                                   // or a GPU
    bool fast_bfloat16 = true;                          // what precision: auto takes
    double peak_flops = 989e12;   // flop/s of a rank in the compute precision; default: one H100, dense bfloat16
    double utilisation = 0.35;    // assumed fraction of it
    int64_t ranks_per_node = 8;   // at most: fewer ranks are on one node
    double node_bandwidth = 2e9;  // byte/s to the file system from a node; an assumption too

    int64_t ranks_on_node() const { return std::min(ranks, ranks_per_node); }
    int64_t nodes() const { return (ranks + ranks_per_node - 1) / ranks_per_node; }
};

struct StageEstimate {
    std::string name;
    int64_t steps = 0;
    int64_t micro_batch_sequences = 0;        // of one rank in its largest forward; 0: not a training stage
    double tokens = 0;                        // over all candidates, and of the longest race for learning rates
    std::vector<ShardingEstimate> shardings;  // that make sense here, none first
    size_t chosen = 0;                        // of them: what the job runs with
    size_t automatic = 0;                     // of them: what auto takes
    double flops = 0;                         // over all ranks
    double seconds = 0;
    double checkpoint_bytes = 0;  // one file; 0: the stage writes none
    double checkpoint_seconds = 0;

    const ShardingEstimate& sharding() const { return shardings.at(chosen); }
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
/// `requests`: of evaluate.requests.
Estimate estimate_job(const Job& job, const ModelConfig& teacher, const Machine& machine,
                      const RequestCounts& requests = {});

/// Bytes of a number in the compute precision of the job on that machine.
int64_t compute_bytes(const Job& job, const Machine& machine);

/// The fraction of a CPU's peak that whole stages reach with students of that teacher. What is no product (attention's
/// softmax, norms, gates, losses, the optimizer) takes as long in any precision, and its time goes with the numbers
/// that it reads and writes: 200 flop of float32 products for each one that is kept for the backward pass. Small models
/// have fewer flop to a number, and are further from the peak. Both peaks in flop/s.
double cpu_utilisation(const Job& job, const ModelConfig& teacher, double peak, double float32_peak);

}  // namespace amalgam
