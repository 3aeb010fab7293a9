// SPDX-License-Identifier: Apache-2.0
// The pieces that recall questions are put together from, as tokens of the teacher's tokenizer: the group /recall of a
// token file (inputs/recall_wording.py writes it; layout in outputs/README.md). The program knows no text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

using TextPiece = std::vector<int32_t>;  // tokens of a piece of text

/// A fact is before_key KEY before_value VALUE after_value.
struct FactWording {
    TextPiece before_key, before_value, after_value;
};

/// A question is before_key KEY after_key; the value is to follow.
struct QuestionWording {
    TextPiece before_key, after_key;
};

struct RecallWording {
    TextPiece start;                        // begins every question; may be empty
    std::vector<TextPiece> noise;           // sentences
    FactWording fact, pair;                 // among sentences, and in a list of nothing else
    std::optional<FactWording> alias;       // among sentences: the value is that of another key, which stands there
    QuestionWording question, of_pair;      // after sentences, and after such a list
    std::vector<TextPiece> keys, values;    // all different
    std::vector<int32_t> sentence_ends;     // tokens after which a sentence of the text may begin; sorted
    std::vector<int32_t> left_out_of_text;  // tokens between documents; sorted
};

/// Keys of the job that messages about questions name.
struct QuestionKeys {
    std::string amount;  // how much is asked, 0: nothing
    std::string kinds;
    std::string length;  // of a question
    std::string text;    // where facts are hidden

    /// Of "evaluate.recall" or "score.recall", about a text of the data.
    static QuestionKeys of_recall(const std::string& section, const std::string& text = "data.validation");
    /// Of a training stage.
    static QuestionKeys of_training(const std::string& stage);
};

/// Throws Error(bad_input) naming the command that writes the group if the file has none and one of `kinds` needs it,
/// or none with what chains need (earlier versions wrote no alias) and they are asked for; Error(damaged_file) naming
/// the dataset if a part of it is not what it should be.
RecallWording read_recall_wording(const std::filesystem::path& token_file, const std::vector<std::string>& kinds,
                                  const QuestionKeys& keys);

/// The same for `section` of the job.
RecallWording read_recall_wording(const std::filesystem::path& token_file, const RecallJob& job,
                                  const std::string& section = "evaluate.recall");

}  // namespace amalgam
