// SPDX-License-Identifier: Apache-2.0
// Puts recall questions together: a context in which facts are told, then questions about them, each with its answer,
// one after another. What the kinds are: recall_questions.h; with several questions,
//
//     noise, text   as many facts as questions, each at its own depth
//     four_keys     the same, and three more facts that nothing asks for
//     chains        the same, each fact with two aliases of its own
//     pairs         one list, of which several facts are asked for
//     passages      several passages of one text begin again
//
// Between an answer and the next question stands what ends a fact.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "questions/recall_wording.h"
#include "storage/token_file.h"
#include "system/random.h"

namespace amalgam {

struct AskedFact {
    int64_t fact = 0;               // where it begins
    int64_t answer = 0, after = 0;  // where the answer to its question begins, and what comes behind
};

struct AskedText {
    std::vector<int32_t> tokens;  // which end with the last answer
    std::vector<AskedFact> asked;
};

/// Random numbers of one text with questions, one after another.
class Draws {
  public:
    Draws(uint64_t seed, const std::string& name) : stream_(seed, name) {}
    uint64_t bits() { return stream_.bits(drawn_++); }
    int64_t below(int64_t end) { return int64_t(bits() % uint64_t(end)); }
    double fraction() { return stream_.uniform(drawn_++); }

  private:
    RandomStream stream_;
    uint64_t drawn_ = 0;
};

/// Whose values the facts have.
enum class FactValues {
    of_wording,
    new_ones  // from its tokens: each token after the first is that of some value at this place
};

/// Makes one text. What it is given must outlive it.
class QuestionMaker {
  public:
    QuestionMaker(const QuestionKeys& keys, const RecallWording& wording, const TokenFile& text, FactValues values,
                  Draws draws);

    /// Exactly `length` tokens with a question for each of `depths` (0 to 1: how much of the context lies before the
    /// fact), at least one, for which there must be room (least_tokens, tokens_of_another). Fewer if too few keys are
    /// left that do not occur in the text; none if there is none to ask for. Throws Error(bad_input) if the token file
    /// is too short.
    std::optional<AskedText> make(RecallKind kind, int64_t length, std::span<const double> depths);

  private:
    struct Haystack;
    struct Fact {
        TextPiece key, value;         // a chain is asked for by the key of its last alias
        std::vector<TextPiece> told;  // with the value, then the aliases, each of the one before
    };

    std::optional<AskedText> among_sentences(RecallKind kind, std::span<const double> depths);
    std::optional<AskedText> among_pairs(std::span<const double> depths);
    AskedText among_passages(std::span<const double> depths);

    static TextPiece tell(const FactWording& wording, const TextPiece& key, const TextPiece& value);
    std::optional<TextPiece> next_key(const TextPiece& read);
    TextPiece value(int64_t number);
    std::vector<Fact> facts(const FactWording& wording, int64_t count, int64_t aliases, const TextPiece& read);
    std::vector<TextPiece> questions(const QuestionWording& wording, const FactWording& told,
                                     std::span<const Fact> asked) const;
    void ask(AskedText& result, std::span<const TextPiece> questions, std::span<const Fact> asked) const;
    TextPiece piece_of_text();
    Haystack end_of(const TextPiece& read, int64_t count) const;
    Haystack noise(int64_t count);

    const QuestionKeys& names_;
    const RecallWording& wording_;
    const TokenFile& text_;
    FactValues fact_values_;
    int64_t length_ = 0;
    Draws draws_;
    Permutation keys_, values_;
    uint64_t keys_used_ = 0;
};

/// Tokens that the longest question of this kind has without any context, with its answer and all facts.
int64_t least_tokens(const RecallWording& wording, RecallKind kind);

/// Tokens that another question in the same text adds to these at most.
int64_t tokens_of_another(const RecallWording& wording, RecallKind kind);

}  // namespace amalgam
