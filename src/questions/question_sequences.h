// SPDX-License-Identifier: Apache-2.0
// Training sequences that are recall questions (recall_questions.h) in place of text: what plain text asks too seldom
// for linear layers to learn it, and contexts that it does not have at all (noise, lists). A sequence is a context of
// the stage's training tokens, or noise or a list, in which one to eight facts are told at random depths, and then as
// many questions with their answers; it is of one kind and of the sequence's length.
//
// None of them is a question of evaluate.recall or score.recall. Their random numbers are streams of other names, so
// that no seed gives the same ones; facts are hidden in the training tokens; and the values are put together anew from
// the tokens of the wording's values (values of one token cannot be, and remain).
#pragma once

#include "job/job.h"
#include "questions/question_maker.h"

namespace amalgam {

class QuestionSequences {
  public:
    /// Of `job`: question_fraction, question_kinds and the lengths of its sequences. `text` is used as long as this
    /// lives. `stage` separates the questions of stages. Throws Error(bad_input) if a kind has no room in a sequence.
    QuestionSequences(const TrainingJob& job, RecallWording wording, const TokenFile& text, uint64_t seed,
                      const std::string& stage);

    /// Is the sequence of this number in the stage's order one of them? They are spread evenly, so that all steps have
    /// their share.
    bool has(int64_t sequence) const;

    /// `length` tokens, a pure function of both numbers, the settings and the files. Where all keys occur in the text
    /// that was drawn, the context is noise. Throws Error(bad_input) if the token file is too short for a text.
    AskedText make(int64_t sequence, int64_t length) const;

  private:
    double fraction_;
    std::vector<RecallKind> kinds_;
    RecallWording wording_;
    const TokenFile& text_;
    uint64_t seed_;
    std::string stage_;
    QuestionKeys keys_;
};

}  // namespace amalgam
