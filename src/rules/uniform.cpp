// SPDX-License-Identifier: Apache-2.0
// Layers at equal distances: layer floor(i * layers / count) + phase for i = 0 .. count - 1, modulo the layers.
#include "rules/budget.h"
#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::vector<std::string> problems(const Options& options, std::optional<int64_t> layers) {
    const int64_t phase = option<int64_t>(options, "phase");
    if (!layers || phase < *layers) return {};
    return {text("select.phase is ", phase, " but the teacher has ", *layers,
                 " layers (it is the first kept one) use 0 to ", *layers - 1)};
}

std::vector<int64_t> choose(const Options& options, int64_t layers, const std::vector<ScoredCandidate>&) {
    const int64_t count = kept_by_budget(options, layers), phase = option<int64_t>(options, "phase");
    std::vector<int64_t> order;
    for (int64_t i = 0; i < count; ++i) order.push_back((i * layers / count + phase) % layers);
    return order;
}

}  // namespace

SelectionRule uniform_rule() {
    const Option phase = {.name = "phase",
                          .default_value = int64_t{0},
                          .unit = "",
                          .description = "uniform: the first kept layer",
                          .range = {.low = 0}};
    return {.name = "uniform",
            .options = {budget_option(), phase},
            .kept = kept_by_budget,
            .problems = problems,
            .choose = choose};
}

}  // namespace amalgam
