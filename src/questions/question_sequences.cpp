// SPDX-License-Identifier: Apache-2.0
#include "questions/question_sequences.h"

#include <algorithm>

#include "job/training_plan.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr int64_t most_questions = 8;  // in a sequence

/// More than one leave half of the sequence to what the facts are hidden in.
int64_t questions_that_fit(const RecallWording& wording, RecallKind kind, int64_t length) {
    const int64_t room = length / 2 - least_tokens(wording, kind);
    return std::clamp(1 + room / tokens_of_another(wording, kind), int64_t{1}, most_questions);
}

}  // namespace

QuestionSequences::QuestionSequences(const TrainingJob& job, RecallWording wording, const TokenFile& text,
                                     uint64_t seed, const std::string& stage)
    : fraction_(job.question_fraction),
      wording_(std::move(wording)),
      text_(text),
      seed_(seed),
      stage_(stage),
      keys_(QuestionKeys::of_training(stage)) {
    const TrainingPlan plan(job);
    for (const std::string& kind : job.question_kinds) {
        kinds_.push_back(*find_value<RecallKind>(kind));
        const int64_t least = least_tokens(wording_, kinds_.back());
        for (const PlannedPhase& phase : plan.phases())
            require(phase.sequence_length >= least, keys_.length, " is ", phase.sequence_length,
                    " but a question of the kind ", kind, " has up to ", least,
                    " tokens without any context (nothing would be hidden) use longer sequences, or leave it out of ",
                    keys_.kinds, ", or set ", keys_.amount, ": 0");
    }
}

bool QuestionSequences::has(int64_t sequence) const {
    const auto before = [&](int64_t number) { return int64_t(double(number) * fraction_); };
    return before(sequence + 1) > before(sequence);
}

AskedText QuestionSequences::make(int64_t sequence, int64_t length) const {
    Draws draws(seed_, text(stage_, " questions ", sequence));
    const RecallKind kind = kinds_[size_t(draws.below(int64_t(kinds_.size())))];
    std::vector<double> depths(size_t(1 + draws.below(questions_that_fit(wording_, kind, length))));
    for (double& depth : depths) depth = draws.fraction();
    const auto make_one = [&](RecallKind one) {
        return QuestionMaker(keys_, wording_, text_, FactValues::new_ones, draws).make(one, length, depths);
    };
    const auto made = make_one(kind);
    return made ? *made : make_one(RecallKind::noise).value();
}

}  // namespace amalgam
