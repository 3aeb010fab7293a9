// SPDX-License-Identifier: Apache-2.0
#include "stages/learning_rate_walk.h"

#include <cmath>
#include <stdexcept>

#include "evaluation/statistics.h"
#include "system/finite.h"

namespace amalgam {
namespace {

constexpr double grid_factor = 3.0;

RatePosition moved(const RatePosition& from, const RatePosition& axis, int64_t steps) {
    return {from[0] + steps * axis[0], from[1] + steps * axis[1]};
}

class Walk {
  public:
    Walk(const AutomaticRates& automatic, const std::vector<RateTrial>& done) : done_(done) {
        const auto mixers = int64_t{automatic.mixers}, rest = int64_t{automatic.rest};
        best_ = {0, 0};
        if (!is_done(best_)) return;
        if (!climb({mixers, rest}, 2)) return;
        if (automatic.mixers && automatic.rest) climb({0, 1}, 1);
    }

    const RatePosition& best() const { return best_; }
    const std::optional<RatePosition>& missing() const { return missing_; }

  private:
    const RateTrial* find(const RatePosition& position) const {
        for (const RateTrial& trial : done_)
            if (trial.position == position) return &trial;
        return nullptr;
    }

    bool is_done(const RatePosition& position) {
        if (find(position) == nullptr) missing_ = position;
        return !missing_;
    }

    /// On the same batches. Beside a trial that diverged any other is better: the walk goes down first.
    bool is_better(const RatePosition& a, const RatePosition& b) const {
        const RateTrial &one = *find(a), &other = *find(b);
        if (!is_finite(other)) return true;
        if (!is_finite(one)) return false;
        std::vector<double> differences;
        for (size_t i = 0; i < one.losses.size(); ++i) differences.push_back(one.losses[i] - other.losses.at(i));
        const auto difference = mean_and_error(differences);
        const double error = differences.size() < 2 ? 0.0 : difference.standard_error;  // of one batch none is known
        return difference.mean + error < 0.0;
    }

    /// At most `reach` steps down, or else up. False if a trial is missing.
    bool climb(const RatePosition& axis, int64_t reach) {
        const RatePosition start = best_;
        for (const int64_t direction : {-1, 1}) {
            for (int64_t step = 1; step <= reach; ++step) {
                const RatePosition next = moved(start, axis, direction * step);
                if (!is_done(next)) return false;
                if (!is_better(next, best_)) break;
                best_ = next;
            }
            if (best_ != start) return true;
        }
        return true;
    }

    const std::vector<RateTrial>& done_;
    RatePosition best_;
    std::optional<RatePosition> missing_;
};

}  // namespace

LearningRates rates_at(const LearningRates& rule, const RatePosition& position) {
    return {rule.mixers * std::pow(grid_factor, double(position[0])),
            rule.rest * std::pow(grid_factor, double(position[1]))};
}

std::optional<RatePosition> next_trial(const AutomaticRates& automatic, const std::vector<RateTrial>& done) {
    return Walk(automatic, done).missing();
}

RatePosition best_trial(const AutomaticRates& automatic, const std::vector<RateTrial>& done) {
    return Walk(automatic, done).best();
}

bool is_finite(const RateTrial& trial) {
    return all_finite(trial.losses);
}

}  // namespace amalgam
