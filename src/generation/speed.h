// SPDX-License-Identifier: Apache-2.0
// How fast a model answers: measured on random tokens, with sequences that are copies of one.
#pragma once

#include <cstdint>

#include "model/causal_lm.h"

namespace amalgam {

struct AnswerSpeed {
    double first_token = 0.0;     // s, from a prompt of one sequence to its first new token
    double step = 0.0;            // s, for one more token of every sequence of the batch
    double step_processor = 0.0;  // s, of all threads of this process: on a busy machine what says most of a CPU
};

/// Of a prompt of `context` tokens, and of `batch` sequences that have seen so many; medians of several runs of `steps`
/// steps. Throws what an allocation throws where memory is too small.
AnswerSpeed measure_speed(const CausalLM& model, int64_t context, int64_t batch, int64_t steps);

/// Bytes that a step must read and write at least: the weights but for an embedding that is only looked up, what the
/// batch has cached, and its states twice.
double least_bytes_of_step(CausalLM& model, int64_t context, int64_t batch);

/// Bytes read and written per second by a copy in the device's memory.
double copy_bandwidth(at::Device device);

}  // namespace amalgam
