// SPDX-License-Identifier: Apache-2.0
// How the gates of all layers went while they were trained (gate_training.h): as scores.h5 has it, in the group /gates,
// and candidates/gates.h5, from which a training that was stopped goes on. Contents in outputs/README.md.
#pragma once

#include <filesystem>
#include <optional>

#include "storage/hdf5.h"
#include "system/provenance.h"

namespace amalgam {

struct GateCourse {
    std::vector<std::vector<double>> gates;  // [step][layer]: at the beginning, and after every step
    std::vector<double> kl, recall_kl;  // on the batch of every step, before it, nat/token; of the answers: empty if
                                        // nothing was asked. Both empty where states are compared
    std::vector<double> far_kl;         // likewise, on tokens that need far context: empty if they have no weight; 0 of
                                        // a batch without them
    std::vector<double> state_error;    // likewise, of the states where these are compared; else empty
    double penalty = 0.0;               // on a gate in the last step, in the unit of the loss
    int64_t tokens = 0;                 // seen so far
    double seconds = 0.0;

    int64_t steps() const { return int64_t(gates.size()) - 1; }
    const std::vector<double>& latest() const { return gates.back(); }

    /// All layers, the largest gate first; of equal ones that which was larger on average, then the lower layer first.
    std::vector<int64_t> order() const;

    /// No step has told any layer from another: their order is that of their numbers.
    bool tells_nothing() const;
};

/// Writes the group /gates.
void write_course(H5File& file, const GateCourse& course);
/// Nothing if the file has no such group. Throws Error(damaged_file).
std::optional<GateCourse> read_course(const H5File& file);

struct GateState {
    GateCourse course;
    std::vector<double> first_moment, second_moment;  // of Adam, by layer
};

void write_gate_state(const std::filesystem::path& path, const GateState& state, const Provenance& provenance);
/// Throws Error(damaged_file).
GateState read_gate_state(const std::filesystem::path& path);

}  // namespace amalgam
