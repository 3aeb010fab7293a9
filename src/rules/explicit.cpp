// SPDX-License-Identifier: Apache-2.0
// The layers that the job names.
#include <set>

#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;

int64_t kept(const Options& options, int64_t) {
    return int64_t(option<Layers>(options, "layers").size());
}

std::vector<std::string> problems(const Options& options, std::optional<int64_t> layers) {
    const auto& named = option<Layers>(options, "layers");
    std::vector<std::string> found;
    if (named.empty())
        found.push_back(
            "select.rule is explicit but select.layers is empty (which layers keep softmax?) list them, or use rule "
            "all_linear");
    std::set<int64_t> distinct;
    for (const int64_t layer : named)
        if (!distinct.insert(layer).second)
            found.push_back(text("select.layers names layer ", layer, " twice (a mistake?) remove one"));
    for (const int64_t layer : named)
        if (layers && layer >= *layers)
            found.push_back(text("select.layers names layer ", layer, " but the teacher has ", *layers,
                                 " (they are counted from 0) use 0 to ", *layers - 1));
    return found;
}

std::vector<int64_t> choose(const Options& options, int64_t, const std::vector<ScoredCandidate>&) {
    return option<Layers>(options, "layers");
}

}  // namespace

SelectionRule explicit_rule() {
    const Option layers = {.name = "layers",
                           .default_value = Layers(),
                           .unit = "",
                           .description = "explicit: the kept layers, counted from 0",
                           .range = {.low = 0}};
    return {.name = "explicit", .options = {layers}, .kept = kept, .problems = problems, .choose = choose};
}

}  // namespace amalgam
