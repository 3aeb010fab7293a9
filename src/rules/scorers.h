// SPDX-License-Identifier: Apache-2.0
// Scorers: which layouts are tried out, and whether they are distilled before they are measured. How they are measured
// needs LibTorch and stands in selection/measurement.h.
#pragma once

#include "options/options.h"
#include "rules/candidate.h"

namespace amalgam {

/// What a scorer knows when it says what is measured next.
struct ScoresSoFar {
    int64_t layers = 0;                        // of the student
    std::string mixer;                         // of its linear layers
    std::vector<ScoredCandidate> scored = {};  // all candidates before, by number
    std::vector<int64_t> order_of_gates = {};  // all layers, the largest gate first; empty: none were trained yet
    Options options = {};                      // of the rule that they are for, as select has them
};

struct Scorer {
    std::string name;
    /// Candidates are distilled briefly, then measured; else they are put together from the teacher's layers and those
    /// of the aligned student, and measured as they are.
    bool distils = true;
    /// Before any candidate, a gate in every layer is trained between both kinds of layers (selection/gate_training.h).
    bool trains_gates = false;
    /// The options that decide what is measured: scores serve a job only if it has the same.
    std::vector<std::string> depends_on = {};
    /// What is to be measured next; a candidate's number is its place in the whole sequence. Nothing: that was all.
    std::vector<Candidate> (*next)(const ScoresSoFar& so_far) = nullptr;
    /// How many there will be, at most.
    int64_t (*count)(const ScoresSoFar& so_far) = nullptr;
};

/// One candidate a layer: softmax comes back in that layer of the all-linear student. Candidate c restores layer c.
const Scorer& restored_layer_scorer();          // distilled
const Scorer& aligned_restored_layer_scorer();  // as they are

/// One candidate a layer: the teacher with the linear mixer in that layer alone.
const Scorer& removed_layer_scorer();          // distilled
const Scorer& aligned_removed_layer_scorer();  // as they are

/// The candidates of restored_layer_scorer(), then those of removed_layer_scorer().
const Scorer& restored_and_removed_scorer();

/// One candidate a layer: the teacher without the output of that layer's attention.
const Scorer& ablated_layer_scorer();

/// From the teacher down to one softmax layer. A round tries the removal of each layer that still has softmax; the
/// layer whose removal leaves the best score stays linear from then on. Greedy backward elimination: a layer is judged
/// beside those that will still be there, so a circuit of layers is kept or given up as a whole. With
/// select.race_errors a round's most promising candidate is measured first and alone: the others have to beat it.
const Scorer& removal_rounds_scorer();

/// From the all-linear student up to all but one layer: the twin of removal_rounds_scorer(). A round tries softmax in
/// each layer that is still linear; the layer that raises the score most keeps it. Greedy forward selection: a layer is
/// judged beside those that were chosen before, so what does nothing without a second one is found late.
const Scorer& addition_rounds_scorer();

/// The candidates of aligned_removed_layer_scorer(); then the set of layers that recall_guided would keep of them;
/// then, in rounds, the best set so far with one of its layers exchanged for another one, in every way that was not
/// measured yet, until no exchange raises the score or select.swap_rounds were done (swaps.cpp).
const Scorer& swaps_scorer();

/// Gates are trained; then one candidate for every number of kept layers, from all down to none: softmax in the layers
/// of the largest gates.
const Scorer& joint_gates_scorer();

/// The layers, from the one that is kept to the end to the first one left out, of candidates of which each keeps the
/// layers of the next one and one more, from all to none. Throws Error(damaged_file) if `scored` are no such
/// candidates.
std::vector<int64_t> order_of_nested(int64_t layers, const std::vector<ScoredCandidate>& scored);

/// What a round does to one more layer.
enum class Round { takes_softmax, gives_softmax };

/// Layers in the order in which the rounds of removal_rounds_scorer() took softmax from them, or those of
/// addition_rounds_scorer() gave it to them; those of finished rounds. Throws Error(damaged_file) if `scored` are no
/// such rounds.
std::vector<int64_t> changed_by_rounds(Round round, int64_t layers, const std::vector<ScoredCandidate>& scored);

}  // namespace amalgam
