// SPDX-License-Identifier: Apache-2.0
// Are two resolved jobs the same, as far as results go?
#pragma once

#include <string>

#include "job/job.h"

namespace amalgam {

/// Without all keys that may change when a run is started again: those that say how the work is divided change results
/// by their rounding alone, and somebody whose memory is too small must be able to change them.
Job comparable(Job job);

/// What transfer, align and score depend on.
Job up_to_scores(Job job);

/// What transfer and align depend on.
Job up_to_align(Job job);

/// The keys in which they differ, a line for each, for a message.
std::string difference(const Job& before, const Job& now);

/// Of those, the ones with which a deterministic job ends with other bits. Jobs promise the same bits only for the same
/// values of these (README).
std::string difference_in_bits(const Job& before, const Job& now);

}  // namespace amalgam
