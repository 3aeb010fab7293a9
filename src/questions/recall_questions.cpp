// SPDX-License-Identifier: Apache-2.0
#include "questions/recall_questions.h"

#include <algorithm>

#include "system/error.h"

namespace amalgam {

RecallQuestions::RecallQuestions(const RecallJob& job, RecallWording wording, const TokenFile& text,
                                 const std::string& section, const std::string& text_key)
    : job_(job), wording_(std::move(wording)), text_(text), keys_(QuestionKeys::of_recall(section, text_key)) {
    int64_t least = 0;
    for (const std::string& kind : job_.kinds)
        least = std::max(least, least_tokens(wording_, *find_value<RecallKind>(kind)));
    for (const int64_t length : job_.lengths) {
        require(length >= least, keys_.length, " holds ", length, " but a question without any context has up to ",
                least, " tokens (nothing would be hidden) raise it");
        require(text_.size() >= length, keys_.length, " holds ", length, " but ", keys_.text, " has only ",
                text_.size(), " tokens (facts are hidden in them) lower it, or give a larger file");
    }
}

int64_t RecallQuestions::size() const {
    return job_.questions_of_a_length() * int64_t(job_.lengths.size());
}

RecallKind RecallQuestions::kind(int64_t question) const {
    const int64_t of_a_kind = job_.questions * int64_t(job_.depths.size() * job_.lengths.size());
    return *find_value<RecallKind>(job_.kinds[size_t(question / of_a_kind)]);
}

int64_t RecallQuestions::length(int64_t question) const {
    const int64_t of_a_cell = job_.questions * int64_t(job_.depths.size());
    return job_.lengths[size_t(question / of_a_cell) % job_.lengths.size()];
}

int64_t RecallQuestions::depth(int64_t question) const {
    return job_.depths[size_t(question / job_.questions) % job_.depths.size()];
}

RecallQuestion RecallQuestions::make(int64_t question) const {
    const RecallKind kind = this->kind(question);
    // By what is asked, not by the number: more questions, or other lengths beside these, leave them as they are.
    const Draws draws(uint64_t(job_.seed), text("recall ", name_of(kind), " ", length(question), " ", depth(question),
                                                " ", question % job_.questions));
    const double told_at = double(this->depth(question)) / 100.0;
    const auto made = QuestionMaker(keys_, wording_, text_, FactValues::of_wording, draws)
                          .make(kind, length(question), std::span(&told_at, 1));
    require(made.has_value(), keys_.length, " holds ", length(question), " but too few of the ", wording_.keys.size(),
            " keys are left that do not occur in a text of that many tokens (what is asked for must be told once) "
            "lower it, or leave text, four_keys and chains out of ",
            keys_.kinds);
    return {made->tokens, made->asked[0].answer, made->asked[0].fact};
}

}  // namespace amalgam
