// SPDX-License-Identifier: Apache-2.0
// Questions about a fact that was told earlier ("The special number of the green kettle is 4820917."), made from the
// validation tokens (or others), the wording in their file and a seed. A question is its context, which ends where the
// answer is to begin, and the answer; together they have exactly the asked length. Kinds (options/choices.h):
//
//     noise, text   a haystack, in which the fact stands where a sentence ends nearest to the asked depth
//     four_keys     likewise, and three more facts, of other keys and values, each after a random sentence
//     pairs         as many facts as there is room for (or keys), the asked one at the asked depth among them; what is
//                   left of the length is noise before the list
//     passages      text whose end repeats a passage of it, found at the asked depth: the answer is how the passage
//                   went on. The only kind that needs no wording
//     chains        as four_keys, but what is asked for takes three lookups. After each of the four facts stand two
//                   aliases of it: a key whose value is told to be that of the fact's key, and one whose value is that
//                   of this alias ("The special number of the tall lamp is that of the green kettle."). Asked is the
//                   second alias. A fact's sentences stand in this order, after random sentences of the text: with the
//                   asked fact at depth 100 all three stand together at its end
//
// The haystack of a text is a random piece of the validation tokens that ends with a sentence, without the tokens
// between documents; a key that occurs in it is not used. In short the needles of G. Kamradt (2023) and of RULER (Hsieh
// et al., arXiv 2404.06654), with lists of pairs as in Liu et al. (arXiv 2307.03172, section 3); chains are as RULER's
// tracking of variables.
//
// A question is a pure function of its number, the job's settings and the file: any rank can make any of them, and
// models that are asked with the same settings are compared question by question.
#pragma once

#include "job/job.h"
#include "questions/question_maker.h"

namespace amalgam {

struct RecallQuestion {
    std::vector<int32_t> tokens;  // the context, then the answer
    int64_t context = 0;          // tokens of the context
    int64_t fact = 0;             // where the asked fact begins in it
};

class RecallQuestions {
  public:
    /// `text` is used as long as this lives; `section` is where the job has these settings, `text_key` where it has the
    /// text. Throws Error(bad_input) naming the key if a length has no room for a question, or the text is shorter than
    /// one.
    RecallQuestions(const RecallJob& job, RecallWording wording, const TokenFile& text,
                    const std::string& section = "evaluate.recall", const std::string& text_key = "data.validation");

    const RecallJob& job() const { return job_; }
    int64_t size() const;

    /// Questions are numbered by kind, then length, depth, and number within these, the last one fastest.
    RecallKind kind(int64_t question) const;
    int64_t length(int64_t question) const;  // tokens
    int64_t depth(int64_t question) const;   // %

    /// Throws Error(bad_input) if too few keys are left that do not occur in the text.
    RecallQuestion make(int64_t question) const;

  private:
    RecallJob job_;
    RecallWording wording_;
    const TokenFile& text_;
    QuestionKeys keys_;
};

}  // namespace amalgam
