// SPDX-License-Identifier: Apache-2.0
// Which layers keep softmax attention: pure functions of scores and of the job's rule.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

struct Selection {
    std::string rule;
    std::vector<int64_t> layers;  // ascending
    std::vector<int64_t> order;   // best first (rules without an order: ascending)
    int64_t seed = 0;
};

/// Layers from the highest score to the lowest; ties go to the lower layer. scores[i] belongs to layer i.
std::vector<int64_t> rank_layers(const std::vector<double>& scores);

/// `count` layers at equal distances: floor(i * layers / count) + phase (mod layers).
std::vector<int64_t> uniform_layers(int64_t layers, int64_t count, int64_t phase);

/// `scores` may be empty for rules that need none.
Selection select_layers(const SelectJob& job, int64_t layers, const std::vector<double>& scores);

}  // namespace amalgam
