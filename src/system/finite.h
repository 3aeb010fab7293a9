// SPDX-License-Identifier: Apache-2.0
// Are numbers finite, i.e. neither NaN nor infinite? Fast enough to ask whenever weights are written or read.
#pragma once

#include <span>

namespace amalgam {

bool all_finite(std::span<const float> values);
bool all_finite(std::span<const double> values);

}  // namespace amalgam
