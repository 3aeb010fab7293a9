// SPDX-License-Identifier: Apache-2.0
#include "job/learning_rate_rule.h"

#include <algorithm>
#include <stdexcept>

namespace amalgam {

LearningRates rule_of_thumb(const std::string& stage, int64_t hidden_size) {
    const double narrower = 576.0 / double(hidden_size), at_most_one = std::min(1.0, narrower);
    if (stage == "align") return {6e-3 * at_most_one, 6e-3 * at_most_one};
    const LearningRates distill = {1e-3 * std::min(1.0, 173.0 / double(hidden_size)), 1e-4 * std::min(10.0, narrower)};
    if (stage == "score") return {distill.mixers / 3, distill.rest / 3};
    if (stage == "distill") return distill;
    if (stage == "finetune") return {1e-4 * at_most_one, 1e-4 * at_most_one};
    throw std::logic_error("stage " + stage + " has no learning rates");
}

}  // namespace amalgam
