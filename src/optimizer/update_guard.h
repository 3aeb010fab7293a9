// SPDX-License-Identifier: Apache-2.0
// Keeps bad updates from the weights: those whose loss or gradient is not finite, and, if asked for, those whose loss
// is a spike. All ranks feed it the same numbers and so decide alike.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <string>

namespace amalgam {

class UpdateGuard {
  public:
    /// spike_guard: z-score of a loss among the last `window` above which its update is skipped; 0: off.
    /// most_skipped: in total, and never more than half of the `steps` of the training; one more is an Error(diverged),
    /// as are 10 in a row that are not finite.
    UpdateGuard(double spike_guard, int64_t most_skipped, int64_t steps = std::numeric_limits<int64_t>::max())
        : spike_guard_(spike_guard), most_skipped_(most_skipped), half_(steps / 2) {}

    /// Why the update of a step must not happen; empty if it may.
    std::string objection(double loss, double gradient_norm);

    /// The losses that come are of another kind: none is a spike beside those that were.
    void forget_losses() { losses_.clear(); }

    int64_t skipped() const { return skipped_; }
    /// Had the last step finite numbers?
    bool is_finite() const { return not_finite_in_a_row_ == 0; }
    /// Why training is over; empty if it may go on.
    std::string verdict() const;

    /// What a run that goes on later must know, as text for a checkpoint: numbers separated by spaces.
    std::string state() const;
    void resume(const std::string& state);  // empty: nothing is known

    static constexpr int64_t window = 128;        // losses
    static constexpr int64_t fewest_losses = 16;  // before any can be called a spike
    static constexpr int64_t most_in_a_row = 10;

  private:
    double z_score(double loss) const;

    double spike_guard_;
    int64_t most_skipped_, half_, skipped_ = 0, not_finite_in_a_row_ = 0;
    std::deque<double> losses_;  // the last finite ones
};

}  // namespace amalgam
