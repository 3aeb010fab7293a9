// SPDX-License-Identifier: Apache-2.0
#include "evaluation/statistics.h"

#include <cmath>

namespace amalgam {

MeanAndError mean_and_error(std::span<const double> values) {
    const double n = double(values.size());
    if (values.empty()) return {};
    double sum = 0.0, squares = 0.0;
    for (double v : values) sum += v;
    const double mean = sum / n;
    for (double v : values) squares += (v - mean) * (v - mean);
    return {mean, values.size() < 2 ? 0.0 : std::sqrt(squares / (n - 1.0) / n)};
}

MeanAndError mean_and_error(std::span<const PartOfMean> parts) {
    double sum = 0.0, count = 0.0, squares = 0.0;
    for (const PartOfMean& part : parts) {
        sum += part.sum;
        count += double(part.count);
    }
    const double mean = sum / count, n = double(parts.size());
    for (const PartOfMean& part : parts) {
        const double residual = part.sum - mean * double(part.count);
        squares += residual * residual;
    }
    return {mean, parts.size() < 2 ? 0.0 : std::sqrt(squares * n / (n - 1.0)) / count};
}

}  // namespace amalgam
