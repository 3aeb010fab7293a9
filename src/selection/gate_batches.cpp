// SPDX-License-Identifier: Apache-2.0
#include "selection/gate_batches.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "evaluation/continuations.h"
#include "job/training_plan.h"

namespace amalgam {
namespace {

constexpr const char* stream_name = "score.gates";

/// Questions have batches of their own here.
TrainingJob without_questions(TrainingJob job) {
    job.question_fraction = 0.0;
    return job;
}

}  // namespace

GateBatches::GateBatches(const TokenFile& text, const ScoreJob& job, const RecallWording& wording, int64_t seed)
    : job_(job),
      micro_batch_(gate_micro_batch(job)),
      order_of_cells_(RandomStream(uint64_t(seed), stream_name).bits(0)) {
    if (gates_see_text(job)) sequences_.emplace(text, without_questions(job), uint64_t(seed), stream_name);
    if (job.recall.questions == 0) return;
    RecallJob asked = job.recall;
    cells_ = int64_t(asked.kinds.size() * asked.lengths.size() * asked.depths.size());
    asked.questions = (job.gates.steps * job.batch_sequences + cells_ - 1) / cells_;
    asked.seed = int64_t(RandomStream(uint64_t(asked.seed), stream_name).bits(0) >> 1);
    questions_ = std::make_unique<RecallQuestions>(asked, wording, text, "score.recall", "data.training");
}

std::vector<GateBatch> GateBatches::of_step(int64_t step) const {
    std::vector<GateBatch> all;
    if (sequences_) add_text(step, all);
    if (questions_) add_questions(step, all);
    return all;
}

void GateBatches::add_text(int64_t step, std::vector<GateBatch>& all) const {
    const at::Tensor tokens = sequences_->sequences(step * job_.batch_sequences, job_.batch_sequences);
    for (int64_t first = 0; first < tokens.size(0); first += micro_batch_) {
        const at::Tensor part = tokens.narrow(0, first, std::min(micro_batch_, tokens.size(0) - first));
        all.push_back({part, at::arange(part.numel(), at::kLong), true});
    }
}

void GateBatches::add_questions(int64_t step, std::vector<GateBatch>& all) const {
    const Permutation cells(uint64_t(cells_), order_of_cells_);
    std::vector<RecallQuestion> made;
    for (int64_t i = step * job_.batch_sequences; i < (step + 1) * job_.batch_sequences; ++i) {
        const auto cell = int64_t(cells.image(uint64_t(i % cells_)));
        made.push_back(questions_->make(cell * questions_->job().questions + i / cells_));
    }
    std::stable_sort(made.begin(), made.end(), [](const RecallQuestion& a, const RecallQuestion& b) {
        return a.tokens.size() > b.tokens.size();  // a batch is of one length
    });
    for (auto first = made.begin(); first != made.end();) {
        auto end = first;
        while (end != made.end() && end - first < micro_batch_ && end->tokens.size() == first->tokens.size()) ++end;
        std::vector<Continuation> asked;
        for (; first != end; ++first) asked.push_back({first->tokens, first->context});
        const ContinuationBatch laid_out = lay_out(asked);
        all.push_back({laid_out.tokens, at::tensor(laid_out.places, at::kLong), false});
    }
}

}  // namespace amalgam
