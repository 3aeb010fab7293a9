// SPDX-License-Identifier: Apache-2.0
// select.budget, the key of all rules that are told how many layers keep softmax.
#pragma once

#include <cstdint>
#include <string>

#include "options/options.h"

namespace amalgam {

const Option& budget_option();

/// Do the scores decide how many layers are kept ("auto")? Only rules that have an order of all layers can do that
/// (kept_curve.h); for others it is no budget.
bool is_automatic(const Options& options);

/// Softmax layers of a model with `layers` layers that `budget` keeps: a count ("7"), a percentage ("25%") or a ratio
/// with a decimal point ("0.25"). Ratios are rounded to the nearest count, halves up: 12.5% of 36 layers are 5. Throws
/// Error(bad_input).
int64_t kept_layers(const std::string& budget, int64_t layers);

/// The same for a rule's options.
int64_t kept_by_budget(const Options& options, int64_t layers);

}  // namespace amalgam
