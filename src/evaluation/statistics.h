// SPDX-License-Identifier: Apache-2.0
// Mean and standard error of a sample.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace amalgam {

struct MeanAndError {
    double mean = 0.0;
    double standard_error = 0.0;  // sample standard deviation / sqrt(n); NaN for one value: it is not known
};

/// " +- 0.0123", with so many decimals; nothing where it is not known.
std::string plus_minus(double standard_error, int decimals = 4);

MeanAndError mean_and_error(std::span<const double> values);

/// The values of one sequence, of which there may be more or fewer than of others.
struct PartOfMean {
    double sum = 0.0;
    int64_t count = 0;
};

/// Mean over all values of all parts, NaN if there are none; the error is that of a ratio of sums over a sample of
/// parts (W. G. Cochran, Sampling Techniques, 1977, chapter 6). Of equally many values in each: that of their means.
MeanAndError mean_and_error(std::span<const PartOfMean> parts);

}  // namespace amalgam
