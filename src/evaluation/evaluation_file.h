// SPDX-License-Identifier: Apache-2.0
// evaluation.h5: perplexity and KL by position, per sequence and in all, and answer accuracy, of several models on the
// same held-out sequences. Layout in outputs/README.md.
#pragma once

#include <filesystem>
#include <optional>

#include "evaluation/held_out.h"
#include "evaluation/requests.h"
#include "system/provenance.h"

namespace amalgam {

struct EvaluatedModel {
    std::string name;  // "teacher", "student"
    TokenMeasurements tokens;
    std::optional<Answers> answers;  // to the requests of the job
};

/// Figures of one model that people read first.
struct EvaluationSummary {
    std::string name;
    double loss = 0.0, loss_error = 0.0, perplexity = 0.0, kl = 0.0, kl_error = 0.0;
    double answer_accuracy = 0.0;  // meaningless if answer_count is 0
    int64_t answer_count = 0;
};

EvaluationSummary summarise(const EvaluatedModel& model, const HeldOutSet& set);

void write_evaluation(const std::filesystem::path& path, const std::vector<EvaluatedModel>& models,
                      const HeldOutSet& set, int64_t position_bins, const Layout& student_layout,
                      const Provenance& provenance);

}  // namespace amalgam
