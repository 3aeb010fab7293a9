// SPDX-License-Identifier: Apache-2.0
// The command measure: how fast models answer, and what they need, against context length and batch. One process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace amalgam {

struct MeasureOptions {
    std::vector<std::string> models;  // folders or checkpoints, on which the same is measured
    std::string out;
    std::vector<int64_t> contexts = {1024, 4096, 16384};  // tokens
    std::vector<int64_t> batches = {1, 8, 64};            // sequences
    int64_t steps = 32;                                   // tokens in a run
    std::string precision = "auto";                       // or float32, bfloat16
    std::string device = "auto";                          // or cpu, cuda
};

/// Writes `out` (outputs/README.md); what memory has no place for is NaN there. Throws Error(bad_input).
void measure_command(const MeasureOptions& options);

}  // namespace amalgam
