// SPDX-License-Identifier: Apache-2.0
// evaluation.h5: perplexity and KL by position, per sequence and in all, answer accuracy and recall of several models,
// all measured on the same. Layout in outputs/README.md.
#pragma once

#include <filesystem>
#include <optional>

#include "evaluation/held_out.h"
#include "evaluation/recall.h"
#include "evaluation/requests.h"
#include "system/provenance.h"

namespace amalgam {

struct EvaluatedModel {
    std::string name;                     // "teacher", "student"
    TokenMeasurements tokens;             // of every token of the held-out set
    std::optional<Answers> answers;       // to the requests of the job
    std::optional<RecallAnswers> recall;  // to its recall questions; of all models or of none
};

/// Figures of one model that people read first, in nat/token: the loss is the mean over all tokens that have a next one
/// in their text, KL that over all tokens; their errors are standard errors over sequences, NaN of one.
struct EvaluationSummary {
    std::string name;
    double loss = 0.0, loss_error = 0.0;
    double perplexity = 0.0;          // exp(loss)
    double kl = 0.0, kl_error = 0.0;  // to the teacher; 0 for the teacher itself
    double answer_accuracy = 0.0;     // fraction of the answer tokens; meaningless if answer_count is 0
    int64_t answer_count = 0;         // answer tokens of the set
};

/// `set` is the one that model.tokens was measured on.
EvaluationSummary summarise(const EvaluatedModel& model, const HeldOutSet& set);

/// Writes evaluation.h5 at `path`, whole or not at all. Figures by position are means over at most `position_bins`
/// equal ranges of the set's positions. `models` share `set`. Of one rank. Throws, naming the file, Error(storage), and
/// Error(diverged) if a number is not finite.
void write_evaluation(const std::filesystem::path& path, const std::vector<EvaluatedModel>& models,
                      const HeldOutSet& set, int64_t position_bins, const Layout& student_layout,
                      const Provenance& provenance);

/// Throws Error(damaged_file) unless all of the file can be read.
void look_through_evaluation(const std::filesystem::path& path);

}  // namespace amalgam
