// SPDX-License-Identifier: Apache-2.0
// What the requests of evaluate.requests ask of each model.
#pragma once

#include <algorithm>
#include <cstdint>

namespace amalgam {

/// A step of many sequences takes about as long as so many prompt tokens for each of them, on GPUs and CPUs alike.
constexpr double tokens_of_a_step = 4.0;

/// Of a batch of judged requests, at most, padding included; a longer request is a batch by itself.
constexpr int64_t judged_batch_tokens = 4096;

/// Of prompts, in one pass, of a model with that intermediate size: on GPUs as many as give the widest activation, gate
/// and up, 1 GiB.
inline int64_t prompt_chunk_tokens(bool on_cpu, int64_t intermediate_size, int64_t number_bytes) {
    if (on_cpu) return 8192;
    return std::clamp<int64_t>((int64_t(1) << 30) / (2 * intermediate_size * number_bytes), 1024, 32768);
}

struct RequestCounts {
    int64_t judged = 0, generating = 0;  // requests
    int64_t judged_batches = 0;
    double judged_tokens = 0;        // to compute: shared contexts once, with padding
    double judged_length = 0;        // of the sequences they stand in, mean over them
    double judged_predictions = 0;   // that the head computes
    double prompt_tokens = 0;        // of those that generate
    double prompt_length = 0;        // likewise
    double new_tokens = 0;           // at most: a stop may end an answer before
    double new_length = 0;           // of sequences whose tokens see as many others on average as these do, likewise
    int64_t longest_judged = 0;      // tokens
    int64_t longest_generating = 0;  // tokens of prompt and answer

    int64_t size() const { return judged + generating; }
};

}  // namespace amalgam
