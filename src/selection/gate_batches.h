// SPDX-License-Identifier: Apache-2.0
// What gates are trained on: sequences of the training text, unless only answers count (gates_see_text), and recall
// questions made from it. A step's batch is a pure function of its number, and is cut into micro-batches without regard
// to the number of ranks.
#pragma once

#include <memory>
#include <optional>

#include "questions/recall_questions.h"
#include "training/batches.h"

namespace amalgam {

struct GateBatch {
    at::Tensor tokens;    // int64 [sequences, time], CPU
    at::Tensor places;    // int64, CPU: where in tokens.flatten() predictions are compared with the teacher's
    bool is_text = true;  // else questions, of which only the answers count
};

class GateBatches {
  public:
    /// Of `job`: sequence_length and batch_sequences of the text, and as many questions of the kinds, lengths and
    /// depths of its recall, unless it asks none. Every question is asked once: none is one of score.recall's own.
    /// `text` and `job` must outlive this. Throws Error(bad_input) as Batches and RecallQuestions do.
    GateBatches(const TokenFile& text, const ScoreJob& job, const RecallWording& wording, int64_t seed);

    /// Throws Error(bad_input) as RecallQuestions::make does.
    std::vector<GateBatch> of_step(int64_t step) const;

  private:
    void add_text(int64_t step, std::vector<GateBatch>& all) const;
    void add_questions(int64_t step, std::vector<GateBatch>& all) const;

    const ScoreJob& job_;
    int64_t micro_batch_;
    std::optional<Batches> sequences_;
    int64_t cells_ = 0;  // kinds x lengths x depths
    uint64_t order_of_cells_;
    std::unique_ptr<RecallQuestions> questions_;
};

}  // namespace amalgam
