// SPDX-License-Identifier: Apache-2.0
// When a candidate need not be measured to the end: it is only of interest if it is better than the best one so far,
// and what was measured of it, held against the same sequences and questions of the best one, says that it is not.
// Pairs of measurements have far smaller errors than either (a race: Maron & Moore, NIPS 1993; F-race: Birattari et
// al., GECCO 2002).
#pragma once

#include "selection/probe.h"

namespace amalgam {

/// How samples are weighed in the score.
struct ScoreWeights {
    double recall = 0.0;  // of the answers' KL
    double far = 0.0;     // of the sums of far_kl, one a sequence
};

/// Is the score of `so_far` below that of `best` by more than `errors` standard errors of the paired difference? Never
/// before 8 sequences, and 8 questions if any are asked, were measured. `best`: of the same text and questions, whole,
/// far_kl in sums.
bool is_surely_worse(const ProbeProgress& so_far, const ProbeSamples& best, const ScoreWeights& weights, double errors);

/// Fills in what was not measured: the best one's value and the mean difference to it of what was. So means are those
/// of the best one plus the mean differences.
void fill_in(ProbeProgress& so_far, const ProbeSamples& best);

}  // namespace amalgam
