// SPDX-License-Identifier: Apache-2.0
// Layers by lot, the same ones for the same seed.
#include "system/random.h"

#include "rules/budget.h"
#include "rules/selection_rule.h"

namespace amalgam {
namespace {

std::vector<int64_t> choose(const Options& options, int64_t layers, const std::vector<ScoredCandidate>&) {
    const RandomStream stream(uint64_t(option<int64_t>(options, "seed")), "random selection");
    const Permutation shuffled(uint64_t(layers), stream.bits(0));
    std::vector<int64_t> order;
    for (int64_t i = 0; i < kept_by_budget(options, layers); ++i) order.push_back(int64_t(shuffled.image(uint64_t(i))));
    return order;
}

}  // namespace

SelectionRule random_rule() {
    const Option seed = {.name = "seed",
                         .default_value = int64_t{0},
                         .unit = "",
                         .description = "random: its seed",
                         .range = {.low = 0}};
    return {.name = "random", .options = {budget_option(), seed}, .kept = kept_by_budget, .choose = choose};
}

}  // namespace amalgam
