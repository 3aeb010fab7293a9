// SPDX-License-Identifier: Apache-2.0
#include "selection/rules.h"

#include <algorithm>
#include <numeric>

#include "job/job_values.h"
#include "system/error.h"
#include "system/random.h"

namespace amalgam {

std::vector<int64_t> rank_layers(const std::vector<double>& scores) {
    std::vector<int64_t> order(scores.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return scores[size_t(a)] > scores[size_t(b)]; });
    return order;
}

std::vector<int64_t> uniform_layers(int64_t layers, int64_t count, int64_t phase) {
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < count; ++i) kept.push_back((i * layers / count + phase) % layers);
    return kept;
}

Selection select_layers(const SelectJob& job, int64_t layers, const std::vector<double>& scores) {
    Selection selection{job.rule, {}, {}, job.seed};
    if (job.rule == "explicit") {
        selection.order = job.layers;
    } else if (job.rule == "uniform") {
        selection.order = uniform_layers(layers, kept_layers(job.budget, layers), job.phase);
    } else if (job.rule == "kl_guided") {
        require(int64_t(scores.size()) == layers, "select.rule: kl_guided needs the scores of all ", layers,
                " layers (", scores.size(), " are there); set score.tokens");
        selection.order = rank_layers(scores);
        selection.order.resize(size_t(kept_layers(job.budget, layers)));
    } else if (job.rule == "random") {
        const Permutation shuffled(uint64_t(layers), RandomStream(uint64_t(job.seed), "random selection").bits(0));
        for (int64_t i = 0; i < kept_layers(job.budget, layers); ++i)
            selection.order.push_back(int64_t(shuffled.image(uint64_t(i))));
    } else {
        require(job.rule == "all_linear", "select.rule: \"", job.rule,
                "\" is not known (kl_guided, uniform, random, explicit, all_linear)");
    }
    selection.layers = selection.order;
    std::sort(selection.layers.begin(), selection.layers.end());
    return selection;
}

}  // namespace amalgam
