// SPDX-License-Identifier: Apache-2.0
// Can a stage be trained as the job says: steps, batches and their shares, warm-up, phases?
#pragma once

#include <cstdint>
#include <string>

#include "job/job_check.h"

namespace amalgam {

/// Of the stage `name`, whose batches are divided among `sharers` ranks, or groups of `context` ranks that share
/// sequences (below 1: not known). `max_positions`: of the teacher; 0: not known.
void check_training(const std::string& name, const TrainingJob& stage, int64_t sharers, int64_t context,
                    int64_t max_positions, Findings& findings);

/// Can `context` ranks share what has so many tokens? `key`: of these.
void check_pieces(const std::string& key, int64_t length, int64_t context, Findings& findings);

/// Sequences that reach positions which the teacher has never been trained on: its answers there are not worth
/// learning. `section`: of the key sequence_length.
void note_positions(const std::string& section, int64_t sequence_length, int64_t max_positions, Findings& findings);

}  // namespace amalgam
