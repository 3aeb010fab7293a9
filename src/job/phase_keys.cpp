// SPDX-License-Identifier: Apache-2.0
#include "job/phase_keys.h"

#include <algorithm>

#include "job/job_schema.h"

namespace amalgam {

const std::vector<PhaseKey>& phase_keys() {
    static const std::vector<PhaseKey> keys = {
        {"tokens", "tokens", &TrainingPhase::tokens, {.low = 1}},
        {"sequence_length", "tokens", &TrainingPhase::sequence_length, {.low = 2}},
        {"batch_sequences", "sequences", &TrainingPhase::batch_sequences, {.low = 1}},
        {"micro_batch_sequences", "sequences", &TrainingPhase::micro_batch_sequences, {.low = 0}}};
    return keys;
}

const PhaseKey& nearest_phase_key(const std::string& name) {
    return *std::min_element(phase_keys().begin(), phase_keys().end(), [&](const PhaseKey& a, const PhaseKey& b) {
        return edit_distance(name, a.name) < edit_distance(name, b.name);
    });
}

}  // namespace amalgam
