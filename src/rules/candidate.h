// SPDX-License-Identifier: Apache-2.0
// What can be scored. A candidate is a layout of the student, tried out to learn what it is worth.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "specification/layout.h"

namespace amalgam {

struct Candidate {
    Layout layout;
    std::map<std::string, double> numbers;  // what else sets it apart, by name, such as a learning rate

    bool operator==(const Candidate&) const = default;
};

struct ScoredCandidate {
    Candidate candidate;
    double score = 0.0;  // nat/token; the higher, the better the layout
};

/// The softmax layer of a candidate that has just one.
std::optional<int64_t> restored_layer(const Candidate& candidate);

/// "layer 5" where softmax is in layer 5 alone, else the layout; then the numbers: "layer 5, learning_rate 0.001".
std::string describe(const Candidate& candidate);

/// The same for a column of a table, where numbers of layers stand below each other: "layer   5".
std::string in_column(const Candidate& candidate);

/// Indices from the best score to the worst; equal scores by their softmax layers, lower layers first. Scores that are
/// not finite say nothing, and come last.
std::vector<size_t> ranking(const std::vector<ScoredCandidate>& scored);

/// Which candidates there are. How they are measured needs LibTorch and stands in selection/measurement.h.
struct Scorer {
    std::string name;
    /// For a student of so many layers whose linear layers have this mixer; a candidate's number is its index.
    std::vector<Candidate> (*candidates)(int64_t layers, const std::string& mixer);
};

/// One candidate a layer: softmax comes back in that layer of the all-linear student. Candidate c restores layer c.
const Scorer& restored_layer_scorer();

}  // namespace amalgam
