// SPDX-License-Identifier: Apache-2.0
// Mean and standard error of a sample.
#pragma once

#include <span>

namespace amalgam {

struct MeanAndError {
    double mean = 0.0;
    double standard_error = 0.0;  // sample standard deviation / sqrt(n); 0 for fewer than two values
};

MeanAndError mean_and_error(std::span<const double> values);

}  // namespace amalgam
