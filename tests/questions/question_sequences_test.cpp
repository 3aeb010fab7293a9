// SPDX-License-Identifier: Apache-2.0
// Training sequences of recall questions: what they hold, and that nothing but the settings decides about it.
#include "questions/question_sequences.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "questions/recall_questions.h"
#include "recall_contents.h"
#include "text_parts.h"

namespace amalgam {
namespace {

using test::occurrences;
using test::part;
using test::place_of;

constexpr int64_t answer_tokens = 3;

class QuestionSequenceMaking : public test::TemporaryFolder {
  protected:
    QuestionSequenceMaking() {
        job.sequence_length = 300;
        job.question_fraction = 0.2;
        use(test::sentences(2000));
    }
    void use(const std::vector<int64_t>& tokens) {
        const auto path = folder / text("text-", files_++, ".h5");
        test::write_tokens(path, tokens, 61);
        corpus = std::make_unique<TokenFile>(path);
    }
    QuestionSequences sequences(uint64_t seed = 1, const std::string& stage = "distill") const {
        return {job, wording, *corpus, seed, stage};
    }

    RecallWording wording = test::small_wording();
    TrainingJob job;
    std::unique_ptr<TokenFile> corpus;

  private:
    int files_ = 0;
};

TEST_F(QuestionSequenceMaking, every_question_asks_for_a_fact_told_before_and_gives_its_value) {
    std::map<size_t, int64_t> of_count;
    for (int64_t s = 0; s < 200; ++s) {
        SCOPED_TRACE(text("sequence ", s));
        const AskedText made = sequences().make(s, 300);
        ASSERT_EQ(made.tokens.size(), 300u);
        ++of_count[made.asked.size()];
        int64_t before = 0;
        std::set<TextPiece> keys;
        for (const AskedFact& asked : made.asked) {
            const bool list = made.tokens[size_t(asked.answer) - 4] == 28;
            const int64_t key_at = asked.fact + (list ? 0 : 2);
            const TextPiece key = part(made.tokens, key_at, 2), value = part(made.tokens, key_at + 3, answer_tokens);
            EXPECT_EQ(asked.after, asked.answer + answer_tokens);
            EXPECT_EQ(part(made.tokens, asked.answer, answer_tokens), value);
            const TextPiece question =
                list ? TextPiece({28, key[0], key[1], 22}) : TextPiece({26, 27, key[0], key[1], 22});
            EXPECT_EQ(part(made.tokens, asked.answer - int64_t(question.size()), int64_t(question.size())), question);
            EXPECT_LT(asked.fact, made.asked[0].answer) << "all facts come before all questions";
            EXPECT_GT(asked.answer, before);
            if (before > 0) {
                EXPECT_EQ(made.tokens[size_t(before)], list ? 25 : 23) << "what ends a fact ends an answer";
            }
            before = asked.after;
            EXPECT_TRUE(keys.insert(key).second) << "asked twice";
            EXPECT_EQ(occurrences(made.tokens, key), 2) << "in the fact and in the question";
        }
        EXPECT_EQ(before, 300) << "the last answer ends the sequence";
    }
    EXPECT_EQ(of_count.size(), 8u) << "one to eight questions";
}

TEST_F(QuestionSequenceMaking, kinds_and_depths_vary) {
    std::map<std::string, int64_t> kinds;
    int64_t early = 0, late = 0, all = 0;
    for (int64_t s = 0; s < 200; ++s) {
        const AskedText made = sequences().make(s, 300);
        const bool list = occurrences(made.tokens, {28}) > 0, noise = occurrences(made.tokens, {2, 3, 4}) > 2,
                   others = occurrences(made.tokens, {20, 21}) > int64_t(made.asked.size());
        if (!list) {
            EXPECT_EQ(occurrences(made.tokens, {20, 21}), int64_t(made.asked.size()) + (others ? 3 : 0));
        }
        ++kinds[list ? "pairs" : noise ? "noise" : others ? "four_keys" : "text"];
        for (const AskedFact& asked : made.asked) {
            early += asked.fact < made.asked[0].answer / 3;
            late += asked.fact > made.asked[0].answer * 2 / 3;
            ++all;
        }
    }
    for (const char* kind : {"noise", "text", "four_keys", "pairs"}) EXPECT_GT(kinds[kind], 25) << kind;
    EXPECT_GT(early, all / 5);
    EXPECT_GT(late, all / 5);
}

TEST_F(QuestionSequenceMaking, a_sequence_depends_on_seed_stage_number_and_length_alone) {
    const QuestionSequences all = sequences();
    const TextPiece wanted = all.make(7, 300).tokens;
    all.make(3, 64);
    EXPECT_EQ(all.make(7, 300).tokens, wanted);
    EXPECT_EQ(sequences().make(7, 300).tokens, wanted);
    EXPECT_NE(all.make(8, 300).tokens, wanted);
    EXPECT_NE(sequences(2).make(7, 300).tokens, wanted);
    EXPECT_NE(sequences(1, "align").make(7, 300).tokens, wanted);
    EXPECT_EQ(all.make(7, 64).tokens.size(), 64u);
}

TEST_F(QuestionSequenceMaking, the_share_is_as_asked_and_spread_evenly) {
    for (const double fraction : {0.01, 0.2, 0.25, 0.5, 0.9}) {
        job.question_fraction = fraction;
        const QuestionSequences all = sequences();
        int64_t count = 0;
        for (int64_t s = 0; s < 1000; ++s) {
            count += all.has(s);
            EXPECT_NEAR(double(count), fraction * double(s + 1), 1.0);
        }
        EXPECT_EQ(count, std::lround(fraction * 1000));
    }
}

/// Each value of the wording has its first token in one of four; with the others from anywhere there are more values.
TEST_F(QuestionSequenceMaking, values_are_made_up_anew) {
    std::set<TextPiece> values, of_wording(wording.values.begin(), wording.values.end());
    for (int64_t s = 0; s < 200; ++s) {
        const AskedText made = sequences().make(s, 300);
        for (const AskedFact& asked : made.asked) values.insert(part(made.tokens, asked.answer, answer_tokens));
    }
    EXPECT_GT(values.size(), of_wording.size());
    for (const TextPiece& value : values)
        for (size_t place = 0; place < value.size(); ++place)
            EXPECT_TRUE(
                std::ranges::any_of(of_wording, [&](const TextPiece& one) { return one[place] == value[place]; }));
}

/// Settings as alike as can be: the same text, seed, kind and length.
TEST_F(QuestionSequenceMaking, none_is_a_question_of_the_evaluation) {
    for (auto& value : wording.values) value.resize(1);  // cannot be made up anew
    for (size_t i = 0; i < wording.values.size(); ++i) wording.values[i][0] = int32_t(31 + i);
    for (const char* kind : {"noise", "text", "four_keys", "pairs", "chains"}) {
        job.question_kinds = {kind};
        const RecallJob asked{
            .questions = 50, .kinds = {kind}, .lengths = {300}, .depths = {0, 25, 50, 75, 100}, .seed = 1};
        const RecallQuestions evaluated(asked, wording, *corpus);
        std::set<TextPiece> theirs;
        for (int64_t i = 0; i < evaluated.size(); ++i) theirs.insert(evaluated.make(i).tokens);
        for (int64_t s = 0; s < 200; ++s) EXPECT_FALSE(theirs.contains(sequences().make(s, 300).tokens)) << kind;
    }
}

TEST_F(QuestionSequenceMaking, passages_begin_again_and_need_no_wording) {
    job.question_kinds = {"passages"};
    wording = {};
    for (int64_t s = 0; s < 50; ++s) {
        const AskedText made = sequences().make(s, 300);
        ASSERT_EQ(made.tokens.size(), 300u);
        for (const AskedFact& asked : made.asked) {
            EXPECT_EQ(asked.after - asked.answer, 8);
            EXPECT_EQ(part(made.tokens, asked.fact, 24), part(made.tokens, asked.answer - 16, 24));
        }
        EXPECT_EQ(made.asked.back().after, 300);
    }
}

TEST_F(QuestionSequenceMaking, every_chain_that_is_asked_for_has_its_own_aliases) {
    job.question_kinds = {"chains"};
    job.sequence_length = 1000;
    wording = test::small_wording(36);
    std::set<size_t> counts;
    for (int64_t s = 0; s < 50; ++s) {
        SCOPED_TRACE(text("sequence ", s));
        const AskedText made = sequences().make(s, 1000);
        ASSERT_EQ(made.tokens.size(), 1000u);
        counts.insert(made.asked.size());
        const TextPiece context = part(made.tokens, 0, made.asked[0].answer - 5);
        const auto chains = int64_t(made.asked.size()) + 3;
        EXPECT_EQ(occurrences(context, {20, 21}), 3 * chains);
        EXPECT_EQ(occurrences(context, {29}), 2 * chains);
        std::set<TextPiece> keys;
        for (const AskedFact& asked : made.asked) {
            TextPiece key = part(made.tokens, asked.answer - 3, 2);
            int64_t before = int64_t(context.size());
            for (int alias = 0; alias < 3; ++alias) {
                EXPECT_TRUE(keys.insert(key).second) << "of two chains";
                const int64_t told = place_of(context, {20, 21, key[0], key[1]});
                ASSERT_GE(told, 0);
                EXPECT_LT(told, before) << "an alias stands before what it is one of";
                before = told;
                if (alias < 2) {
                    ASSERT_EQ(context[size_t(told) + 4], 29);
                    key = part(context, told + 5, 2);
                } else {
                    EXPECT_EQ(told, asked.fact);
                    EXPECT_EQ(part(context, told + 5, answer_tokens), part(made.tokens, asked.answer, answer_tokens));
                }
            }
        }
        EXPECT_EQ(made.asked.back().after, 1000);
    }
    EXPECT_EQ(counts.size(), 8u) << "one to eight questions";
}

/// All pieces of this wording are as long as the longest one.
TEST_F(QuestionSequenceMaking, the_least_length_holds_the_questions_and_no_haystack) {
    wording = test::small_wording(36);
    const auto keys = QuestionKeys::of_training("distill");
    for (const auto& [kind, name] : enum_names<RecallKind>) {
        SCOPED_TRACE(name);
        const int64_t length = least_tokens(wording, kind) + 2 * tokens_of_another(wording, kind);
        QuestionMaker maker(keys, wording, *corpus, FactValues::of_wording, {1, "least"});
        const auto made = maker.make(kind, length, std::vector<double>{0.0, 0.5, 1.0});
        ASSERT_TRUE(made);
        EXPECT_EQ(int64_t(made->tokens.size()), length);
        EXPECT_EQ(made->asked.size(), 3u);
        if (kind != RecallKind::passages) {
            EXPECT_EQ(occurrences(made->tokens, {test::sentence_end}), 0);
        }
    }
}

TEST_F(QuestionSequenceMaking, there_are_as_many_chains_as_keys) {
    job.question_kinds = {"chains"};
    for (const int32_t keys : {12, 14, 15}) {
        wording = test::small_wording(keys);
        size_t most = 0;
        for (int64_t s = 0; s < 20; ++s) most = std::max(most, sequences().make(s, 1000).asked.size());
        EXPECT_EQ(most, keys < 15 ? 1u : 2u) << keys;
    }
}

TEST_F(QuestionSequenceMaking, where_the_text_has_all_keys_the_context_is_noise) {
    auto tokens = test::sentences(2000);
    for (size_t i = 0; i < wording.keys.size(); ++i)
        for (size_t at = i * 5; at < tokens.size(); at += 100)
            std::copy(wording.keys[i].begin(), wording.keys[i].end(), tokens.begin() + std::ptrdiff_t(at));
    use(tokens);
    job.question_kinds = {"text"};
    for (int64_t s = 0; s < 20; ++s) {
        const AskedText made = sequences().make(s, 300);
        EXPECT_GE(made.asked.size(), 1u);
        EXPECT_GT(occurrences(made.tokens, {2, 3, 4}), 2);
    }
}

TEST_F(QuestionSequenceMaking, short_sequences_have_one_question_and_shorter_ones_are_refused) {
    job.sequence_length = 45;  // just four facts and a question
    for (int64_t s = 0; s < 50; ++s) {
        const AskedText made = sequences().make(s, 45);
        EXPECT_EQ(made.tokens.size(), 45u);
        EXPECT_EQ(made.asked.size(), 1u);
    }
    job.sequence_length = 44;
    test::expect_error([&] { sequences(); }, ExitCode::bad_input,
                       {"distill.sequence_length is 44", "four_keys", "45 tokens", "distill.question_fraction: 0"});
    job.question_kinds = {"chains"};
    test::expect_error([&] { sequences(); }, ExitCode::bad_input, {"distill.sequence_length is 44", "chains"});
    job.sequence_length = 109;
    sequences().make(0, 109);
    job.sequence_length = 44;
    job.question_kinds = {"pairs"};
    sequences();
    job.phases = {{1000, 300, 1, 0}, {1000, 14, 1, 0}};
    test::expect_error([&] { sequences(); }, ExitCode::bad_input, {"distill.sequence_length is 14", "pairs"});
}

}  // namespace
}  // namespace amalgam
