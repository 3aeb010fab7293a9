// SPDX-License-Identifier: Apache-2.0
#include "optimizer/update_guard.h"

#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

#include "system/error.h"

namespace amalgam {

std::string UpdateGuard::objection(double loss, double gradient_norm) {
    if (!std::isfinite(loss) || !std::isfinite(gradient_norm)) {
        ++skipped_;
        ++not_finite_in_a_row_;
        return "not finite";
    }
    not_finite_in_a_row_ = 0;
    if (spike_guard_ <= 0.0) return {};
    const double z = z_score(loss);
    // A spike is remembered like any other loss: if the level has changed for good, the guard gets used to it.
    losses_.push_back(loss);
    if (int64_t(losses_.size()) > window) losses_.pop_front();
    if (z <= spike_guard_) return {};
    ++skipped_;
    return text("a spike, ", z, " standard deviations above the last ", losses_.size() - 1, " losses");
}

std::string UpdateGuard::verdict() const {
    if (not_finite_in_a_row_ >= most_in_a_row)
        return text(not_finite_in_a_row_, " steps in a row without finite loss and gradients; lower the learning rate");
    if (skipped_ > most_skipped_)
        return text(skipped_, " updates were skipped, max_skipped_updates is ", most_skipped_,
                    "; lower the learning rate or raise the limit");
    if (skipped_ > half_)
        return text(skipped_, " updates were skipped, more than half of all; lower the learning rate");
    return {};
}

std::string UpdateGuard::state() const {
    std::ostringstream numbers;
    numbers << std::setprecision(std::numeric_limits<double>::max_digits10) << skipped_ << ' ' << not_finite_in_a_row_;
    for (const double loss : losses_) numbers << ' ' << loss;
    return numbers.str();
}

void UpdateGuard::resume(const std::string& state) {
    if (state.empty()) return;
    std::istringstream numbers(state);
    numbers >> skipped_ >> not_finite_in_a_row_;
    losses_.clear();
    for (double loss = 0.0; numbers >> loss;) losses_.push_back(loss);
}

double UpdateGuard::z_score(double loss) const {
    const double count = double(losses_.size());
    if (int64_t(losses_.size()) < fewest_losses) return 0.0;
    double mean = 0.0, variance = 0.0;
    for (const double value : losses_) mean += value / count;
    for (const double value : losses_) variance += (value - mean) * (value - mean) / count;
    return variance > 0.0 ? (loss - mean) / std::sqrt(variance) : 0.0;
}

}  // namespace amalgam
