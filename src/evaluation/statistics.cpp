// SPDX-License-Identifier: Apache-2.0
#include "evaluation/statistics.h"

#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

namespace amalgam {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

}  // namespace

std::string plus_minus(double standard_error, int decimals) {
    if (std::isnan(standard_error)) return "";
    std::ostringstream out;
    out << " +- " << std::fixed << std::setprecision(decimals) << standard_error;
    return out.str();
}

MeanAndError mean_and_error(std::span<const double> values) {
    const double n = double(values.size());
    if (values.empty()) return {};
    double sum = 0.0, squares = 0.0;
    for (double v : values) sum += v;
    const double mean = sum / n;
    for (double v : values) squares += (v - mean) * (v - mean);
    return {mean, values.size() < 2 ? unknown : std::sqrt(squares / (n - 1.0) / n)};
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
    return {mean, parts.size() < 2 ? unknown : std::sqrt(squares * n / (n - 1.0)) / count};
}

}  // namespace amalgam
