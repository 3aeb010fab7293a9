// SPDX-License-Identifier: Apache-2.0
#include "selection/early_exit.h"

#include <algorithm>
#include <cmath>

#include "evaluation/statistics.h"

namespace amalgam {
namespace {

constexpr size_t fewest = 8;  // values of which a standard error says something

/// values - best where `measured`.
std::vector<double> differences(const std::vector<double>& values, const std::vector<double>& best,
                                const std::vector<bool>& measured) {
    std::vector<double> found;
    for (size_t i = 0; i < values.size(); ++i)
        if (measured[i]) found.push_back(values[i] - best[i]);
    return found;
}

const std::vector<bool>& measured_of(const ProbeProgress& so_far, const std::string& name) {
    return name.starts_with("recall") ? so_far.questions : so_far.sequences;
}

}  // namespace

bool is_surely_worse(const ProbeProgress& so_far, const ProbeSamples& best, const ScoreWeights& weights,
                     double errors) {
    const auto of = [&](const char* name) {
        return differences(so_far.samples.at(name), best.at(name), measured_of(so_far, name));
    };
    std::vector<double> of_text = of("kl"), of_answers;
    if (so_far.samples.contains("far_kl")) {
        const std::vector<double> far = of("far_kl");
        for (size_t i = 0; i < far.size(); ++i) of_text[i] += weights.far * far[i];
    }
    if (!so_far.questions.empty()) of_answers = of("recall_kl");
    if (of_text.size() < fewest || (!so_far.questions.empty() && of_answers.size() < fewest)) return false;
    const MeanAndError text = mean_and_error(of_text), answers = mean_and_error(of_answers);
    const double worse = text.mean + weights.recall * answers.mean;
    return worse > 0.0 && worse > errors * std::hypot(text.standard_error, weights.recall * answers.standard_error);
}

void fill_in(ProbeProgress& so_far, const ProbeSamples& best) {
    for (auto& [name, values] : so_far.samples) {
        const std::vector<bool>& measured = measured_of(so_far, name);
        const std::vector<double>& others = best.at(name);
        const double difference = mean_and_error(differences(values, others, measured)).mean;
        for (size_t i = 0; i < values.size(); ++i)
            if (!measured[i]) values[i] = others[i] + difference;
    }
}

}  // namespace amalgam
