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
    double score = 0.0;                      // nat/token; the higher, the better the layout
    std::map<std::string, double> measured;  // means of what was measured of it, by name (selection/score_file.h)
};

/// The softmax layer of a candidate that has just one.
std::optional<int64_t> restored_layer(const Candidate& candidate);

/// The layer without softmax of a candidate that has just one.
std::optional<int64_t> removed_layer(const Candidate& candidate);

/// "layer 5" where softmax is in layer 5 alone, "without layer 5" where it is everywhere else, else the layout; then
/// the numbers: "layer 5, learning_rate 0.001".
std::string describe(const Candidate& candidate);

/// The same for a column of a table, where numbers of layers stand below each other: "layer   5".
std::string in_column(const Candidate& candidate);

/// Indices from the best score to the worst; equal scores by their softmax layers, lower layers first. Scores that are
/// not finite say nothing, and come last.
std::vector<size_t> ranking(const std::vector<ScoredCandidate>& scored);

/// Indices as people look for layers, the most important one first: as ranking(), but where every candidate is without
/// one layer, the worst score comes first. Scores that are not finite come last here, too.
std::vector<size_t> by_importance(std::vector<ScoredCandidate> scored);

}  // namespace amalgam
