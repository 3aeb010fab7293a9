// SPDX-License-Identifier: Apache-2.0
// What recall questions are made of, and that they are the same wherever they are made.
#include "questions/recall_questions.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "recall_contents.h"
#include "text_parts.h"

namespace amalgam {
namespace {

using test::occurrences;
using test::part;
using test::place_of;

constexpr int64_t fact_tokens = 9, alias_tokens = 8, pair_tokens = 7, answer_tokens = 3;

class RecallQuestionMaking : public test::TemporaryFolder {
  protected:
    RecallQuestionMaking() { use(test::sentences(2000)); }

    void use(const std::vector<int64_t>& tokens) {
        const auto path = folder / text("text-", files_++, ".h5");
        test::write_tokens(path, tokens, 61);
        corpus = std::make_unique<TokenFile>(path);
    }
    RecallQuestions questions() const { return RecallQuestions(job, wording, *corpus); }

    /// Every question with what it should be.
    void for_each(const std::function<void(const RecallQuestion&, RecallKind, int64_t length, int64_t depth)>& look) {
        const RecallQuestions all = questions();
        ASSERT_GT(all.size(), 0);
        for (int64_t i = 0; i < all.size(); ++i) {
            SCOPED_TRACE(text(name_of(all.kind(i)), ", ", all.length(i), " tokens, depth ", all.depth(i)));
            look(all.make(i), all.kind(i), all.length(i), all.depth(i));
        }
    }

    RecallWording wording = test::small_wording();
    RecallJob job{.questions = 3, .lengths = {64, 150}};
    std::unique_ptr<TokenFile> corpus;

  private:
    int files_ = 0;
};

TEST_F(RecallQuestionMaking, a_question_has_its_length_its_fact_and_its_answer) {
    for_each([&](const RecallQuestion& q, RecallKind kind, int64_t length, int64_t) {
        ASSERT_EQ(int64_t(q.tokens.size()), length);
        ASSERT_EQ(q.context, length - answer_tokens);
        EXPECT_EQ(q.tokens[0], 1);
        const bool list = kind == RecallKind::pairs;
        const int64_t key_at = q.fact + (list ? 0 : 2);
        const TextPiece key = part(q.tokens, key_at, 2), value = part(q.tokens, key_at + 3, 3);
        EXPECT_TRUE(std::count(wording.keys.begin(), wording.keys.end(), key));
        EXPECT_TRUE(std::count(wording.values.begin(), wording.values.end(), value));
        EXPECT_EQ(part(q.tokens, q.fact, list ? pair_tokens : fact_tokens),
                  list ? TextPiece({key[0], key[1], 24, value[0], value[1], value[2], 25})
                       : TextPiece({20, 21, key[0], key[1], 22, value[0], value[1], value[2], 23}));
        const TextPiece question = list ? TextPiece({28, key[0], key[1], 22}) : TextPiece({26, 27, key[0], key[1], 22});
        EXPECT_EQ(part(q.tokens, q.context - int64_t(question.size()), int64_t(question.size())), question);
        EXPECT_EQ(part(q.tokens, q.context, answer_tokens), value);
    });
}

TEST_F(RecallQuestionMaking, the_fact_stands_at_the_asked_depth) {
    for_each([&](const RecallQuestion& q, RecallKind kind, int64_t length, int64_t depth) {
        const TextPiece before = part(q.tokens, 0, q.fact);
        if (kind == RecallKind::pairs) {
            const int64_t others = occurrences(q.tokens, {25}) - 1;
            EXPECT_EQ(occurrences(before, {25}), std::lround(double(depth) / 100.0 * double(others)));
            EXPECT_GT(others, 4);
            return;
        }
        const int64_t facts = kind == RecallKind::four_keys ? 4 : 1;
        const double hay = double(length - 1 - facts * fact_tokens - 5 - answer_tokens),
                     hay_before = double(q.fact - 1 - occurrences(before, {20, 21}) * fact_tokens);
        EXPECT_NEAR(hay_before, hay * double(depth) / 100.0, 5.0);  // at most nine tokens between ends of sentences
        EXPECT_TRUE(hay_before == 0 || before.back() == test::sentence_end || before.back() == 23);
        EXPECT_TRUE(depth > 0 || hay_before == 0);
        EXPECT_TRUE(depth < 100 || hay_before == hay);
    });
}

TEST_F(RecallQuestionMaking, what_is_asked_is_told_once_and_no_other_fact_has_the_answer) {
    for_each([&](const RecallQuestion& q, RecallKind kind, int64_t, int64_t) {
        const bool list = kind == RecallKind::pairs;
        const TextPiece context = part(q.tokens, 0, q.context), answer = part(q.tokens, q.context, answer_tokens),
                        key = part(q.tokens, q.fact + (list ? 0 : 2), 2);
        EXPECT_EQ(occurrences(context, key), 2);  // in the fact and in the question
        EXPECT_EQ(occurrences(context, answer), 1);
        if (list) return;
        EXPECT_EQ(occurrences(context, {20, 21}), kind == RecallKind::four_keys ? 4 : 1);
        std::set<TextPiece> keys;
        for (int64_t t = 0; t < q.context - 3; ++t)
            if (q.tokens[size_t(t)] == 20 && q.tokens[size_t(t) + 1] == 21) keys.insert(part(q.tokens, t + 2, 2));
        EXPECT_EQ(int64_t(keys.size()), occurrences(context, {20, 21}));
    });
}

/// The key whose alias this one is; nothing if it has a value of its own.
std::optional<TextPiece> other_key(const TextPiece& context, const TextPiece& key) {
    const int64_t told = place_of(context, {20, 21, key[0], key[1]});
    if (told < 0 || context[size_t(told) + 4] != 29) return std::nullopt;
    EXPECT_EQ(context[size_t(told) + 7], 23);
    return part(context, told + 5, 2);
}

TEST_F(RecallQuestionMaking, a_chain_is_told_in_order_and_asked_for_by_its_end) {
    job.kinds = {"chains"};
    job.questions = 20;
    job.lengths = {150, 300};
    int64_t apart = 0;
    for_each([&](const RecallQuestion& q, RecallKind, int64_t length, int64_t depth) {
        ASSERT_EQ(int64_t(q.tokens.size()), length);
        ASSERT_EQ(q.context, length - answer_tokens);
        const TextPiece context = part(q.tokens, 0, q.context), answer = part(q.tokens, q.context, answer_tokens),
                        asked = part(q.tokens, q.context - 3, 2);
        EXPECT_EQ(part(q.tokens, q.context - 5, 5), TextPiece({26, 27, asked[0], asked[1], 22}));
        EXPECT_EQ(occurrences(context, asked), 2) << "where it is told and where it is asked for";
        const auto first = other_key(context, asked);
        ASSERT_TRUE(first);
        const auto key = other_key(context, *first);
        ASSERT_TRUE(key);
        EXPECT_FALSE(other_key(context, *key)) << "two aliases, not more";
        EXPECT_EQ(std::set<TextPiece>({asked, *first, *key}).size(), 3u);
        for (const TextPiece& told : {*first, *key}) EXPECT_EQ(occurrences(context, told), 2);

        EXPECT_EQ(part(q.tokens, q.fact, fact_tokens),
                  TextPiece({20, 21, (*key)[0], (*key)[1], 22, answer[0], answer[1], answer[2], 23}));
        EXPECT_EQ(occurrences(context, answer), 1);
        const int64_t near = place_of(context, {20, 21, (*first)[0], (*first)[1]}),
                      far = place_of(context, {20, 21, asked[0], asked[1]});
        EXPECT_GE(near, q.fact + fact_tokens);
        EXPECT_GE(far, near + alias_tokens);
        apart += near > q.fact + fact_tokens && far > near + alias_tokens;

        const double hay = double(length - 1 - 4 * (fact_tokens + 2 * alias_tokens) - 5 - answer_tokens);
        const TextPiece before = part(q.tokens, 0, q.fact);
        const int64_t aliases = occurrences(before, {29}), facts = occurrences(before, {20, 21}) - aliases;
        EXPECT_NEAR(double(q.fact - 1 - facts * fact_tokens - aliases * alias_tokens), hay * double(depth) / 100.0,
                    5.0);
    });
    EXPECT_GT(apart, questions().size() / 2) << "other sentences stand between";
}

TEST_F(RecallQuestionMaking, three_other_chains_stand_beside_the_asked_one) {
    job.kinds = {"chains"};
    job.lengths = {150};
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t) {
        const TextPiece context = part(q.tokens, 0, q.context), asked = part(q.tokens, q.context - 3, 2);
        std::set<TextPiece> keys, values;
        std::map<TextPiece, int64_t> aliases;  // of a key with a value
        for (int64_t t = 0; t + fact_tokens < q.context; ++t) {
            if (q.tokens[size_t(t)] != 20) continue;
            TextPiece key = part(context, t + 2, 2);
            EXPECT_TRUE(keys.insert(key).second) << "told twice";
            if (context[size_t(t) + 4] == 22) values.insert(part(context, t + 5, answer_tokens));
            int64_t steps = 0;
            for (auto other = other_key(context, key); other; other = other_key(context, key), ++steps) key = *other;
            EXPECT_LE(steps, 2);
            aliases[key] += steps > 0;
        }
        EXPECT_EQ(keys.size(), 12u);
        EXPECT_EQ(values.size(), 4u) << "guessing the only number is of no use";
        EXPECT_EQ(aliases.size(), 4u);
        for (const auto& [key, count] : aliases) EXPECT_EQ(count, 2) << "nor is what the only aliases lead to";
        EXPECT_TRUE(keys.contains(asked));
    });
}

TEST_F(RecallQuestionMaking, the_haystack_is_a_piece_of_the_text_without_what_is_between_documents) {
    job.kinds = {"text", "four_keys", "chains"};
    job.lengths = {120, 150};
    std::vector<int64_t> stored(size_t(corpus->size()));
    corpus->read(0, stored);
    TextPiece all(stored.begin(), stored.end());
    all.insert(all.end(), stored.begin(), stored.end());  // behind the last token comes the first
    std::erase(all, test::document_end);
    std::set<TextPiece> different;
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t) {
        TextPiece hay = part(q.tokens, 1, q.context - 6);
        for (const TextPiece start = {20, 21};;) {
            const auto fact = std::search(hay.begin(), hay.end(), start.begin(), start.end());
            if (fact == hay.end()) break;
            hay.erase(fact, fact + (fact[4] == 29 ? alias_tokens : fact_tokens));
        }
        EXPECT_NE(std::search(all.begin(), all.end(), hay.begin(), hay.end()), all.end());
        EXPECT_EQ(hay.back(), test::sentence_end);
        different.insert(hay);
    });
    EXPECT_GT(different.size(), 75u);  // of 90
}

TEST_F(RecallQuestionMaking, questions_depend_on_seed_kind_length_depth_and_number_only) {
    job.kinds = {"pairs", "text"};
    const RecallQuestions all = questions();
    const RecallQuestion wanted = all.make(all.size() - 1);  // text, 150 tokens, depth 100, number 2
    EXPECT_EQ(all.make(all.size() - 1).tokens, wanted.tokens);
    EXPECT_NE(all.make(all.size() - 2).tokens, wanted.tokens);
    job.kinds = {"text"};
    job.lengths = {150};
    job.depths = {100};
    EXPECT_EQ(questions().make(2).tokens, wanted.tokens);
    job.questions = 10;
    EXPECT_EQ(questions().make(2).tokens, wanted.tokens);
    job.seed = 1;
    EXPECT_NE(questions().make(2).tokens, wanted.tokens);
}

TEST_F(RecallQuestionMaking, a_list_longer_than_all_keys_begins_with_noise) {
    job.kinds = {"pairs"};
    job.lengths = {200};
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t depth) {
        EXPECT_EQ(occurrences(q.tokens, {24}), 12);
        EXPECT_GT(occurrences(q.tokens, {test::sentence_end}), 10);
        EXPECT_TRUE(depth > 0 || q.tokens[size_t(q.fact) - 1] == test::sentence_end);
    });
}

TEST_F(RecallQuestionMaking, keys_that_the_text_has_are_not_asked_for) {
    auto tokens = test::sentences(400);
    for (size_t i = 0; i < 8; ++i)
        for (size_t at = i * 5; at < tokens.size(); at += 50)
            std::copy(wording.keys[i].begin(), wording.keys[i].end(), tokens.begin() + std::ptrdiff_t(at));
    use(tokens);
    job.kinds = {"four_keys"};
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t) {
        const TextPiece key = part(q.tokens, q.fact + 2, 2);
        EXPECT_GE(std::find(wording.keys.begin(), wording.keys.end(), key) - wording.keys.begin(), 8);
    });
    for (size_t at = 40; at < tokens.size(); at += 50)  // a ninth: three are too few
        std::copy(wording.keys[8].begin(), wording.keys[8].end(), tokens.begin() + std::ptrdiff_t(at));
    use(tokens);
    test::expect_error([&] { questions().make(0); }, ExitCode::bad_input, {"evaluate.recall", "keys", "lengths"});
    job.kinds = {"chains"};
    job.lengths = {150};
    use(test::sentences(2000));
    EXPECT_EQ(questions().make(0).tokens.size(), 150u);
    wording.keys.pop_back();  // eleven: four chains take twelve
    test::expect_error([&] { questions().make(0); }, ExitCode::bad_input, {"evaluate.recall", "11 keys", "lengths"});
}

TEST_F(RecallQuestionMaking, lengths_that_hold_no_question_are_refused) {
    job.lengths = {44, 100};
    test::expect_error([&] { questions(); }, ExitCode::bad_input, {"evaluate.recall.lengths", "44", "45 tokens"});
    job.lengths = {45};  // just the facts and the question
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t) { EXPECT_EQ(q.tokens.size(), 45u); });
    job.kinds = {"chains"};
    job.lengths = {108, 200};
    test::expect_error([&] { questions(); }, ExitCode::bad_input, {"evaluate.recall.lengths", "108", "109 tokens"});
    job.lengths = {109};
    for_each([&](const RecallQuestion& q, RecallKind, int64_t, int64_t) { EXPECT_EQ(q.tokens.size(), 109u); });
    job.lengths = {2001};
    test::expect_error([&] { questions(); }, ExitCode::bad_input,
                       {"evaluate.recall.lengths", "2001", "data.validation", "2000"});
    job.lengths = {2000};  // as many as the file has, but not without the ends of documents
    job.kinds = {"text"};
    test::expect_error([&] { questions().make(0); }, ExitCode::bad_input, {"evaluate.recall.lengths", "1960"});
}

TEST_F(RecallQuestionMaking, the_wording_of_a_file_is_read_back) {
    const auto path = folder / "with.h5";
    test::write_tokens(path, test::sentences(100), 61);
    test::expect_error([&] { read_recall_wording(path, job); }, ExitCode::bad_input,
                       {"with.h5", "inputs/recall_wording.py --tokenizer", "evaluate.recall.questions: 0"});
    test::write_wording(path, wording);
    const RecallWording back = read_recall_wording(path, job);
    EXPECT_EQ(back.start, wording.start);
    EXPECT_EQ(back.noise, wording.noise);
    EXPECT_EQ(back.pair.before_key, wording.pair.before_key);
    EXPECT_EQ(back.fact.after_value, wording.fact.after_value);
    ASSERT_TRUE(back.alias);
    EXPECT_EQ(back.alias->before_value, wording.alias->before_value);
    EXPECT_EQ(back.question.before_key, wording.question.before_key);
    EXPECT_EQ(back.of_pair.after_key, wording.of_pair.after_key);
    EXPECT_EQ(back.keys, wording.keys);
    EXPECT_EQ(back.values, wording.values);
    EXPECT_EQ(back.sentence_ends, wording.sentence_ends);
    EXPECT_EQ(back.left_out_of_text, wording.left_out_of_text);
}

/// As earlier versions wrote it.
TEST_F(RecallQuestionMaking, a_wording_without_aliases_does_for_all_but_chains) {
    const auto path = folder / "older.h5";
    test::write_tokens(path, test::sentences(100), 61);
    wording.alias.reset();
    test::write_wording(path, wording);
    job.kinds = {"noise", "text", "four_keys", "pairs", "passages"};
    EXPECT_FALSE(read_recall_wording(path, job).alias);
    questions().make(0);
    job.kinds.push_back("chains");
    test::expect_error([&] { read_recall_wording(path, job, "score.recall"); }, ExitCode::bad_input,
                       {"older.h5 has no wording of aliases", "score.recall.kinds has chains",
                        "inputs/recall_wording.py --tokenizer TEACHER_FOLDER", "older.h5"});
}

TEST_F(RecallQuestionMaking, a_passage_begins_again_and_goes_on_as_it_did) {
    job.kinds = {"passages"};
    job.lengths = {64, 150, 300};
    std::set<TextPiece> different;
    for_each([&](const RecallQuestion& q, RecallKind, int64_t length, int64_t depth) {
        constexpr int64_t again = 16, answer = 8;
        ASSERT_EQ(int64_t(q.tokens.size()), length);
        ASSERT_EQ(q.context, length - answer);
        EXPECT_EQ(part(q.tokens, q.fact, again + answer), part(q.tokens, length - again - answer, again + answer));
        const double places = double(length - 1 - 2 * (again + answer));  // from the first to the last possible one
        EXPECT_NEAR(double(q.fact - 1), places * double(depth) / 100.0, 5.0);
        different.insert(part(q.tokens, q.fact, again + answer));
    });
    EXPECT_GT(int64_t(different.size()), questions().size() * 3 / 4);  // of some hundred sentences, at random
    job.lengths = {48};
    test::expect_error([&] { questions(); }, ExitCode::bad_input, {"evaluate.recall.lengths", "48", "49 tokens"});
}

TEST_F(RecallQuestionMaking, passages_need_no_wording) {
    const auto path = folder / "without.h5";
    test::write_tokens(path, test::sentences(1000), 61);
    job.kinds = {"passages"};
    const TokenFile text(path);
    const RecallQuestions without(job, read_recall_wording(path, job), text);
    EXPECT_EQ(without.make(0).tokens.size(), 64u);
    job.kinds = {"passages", "text"};
    test::expect_error([&] { read_recall_wording(path, job); }, ExitCode::bad_input, {"kinds: [passages]"});
}

TEST_F(RecallQuestionMaking, a_wording_that_cannot_be_is_damage) {
    const auto damaged = [&](const std::string& name, const std::function<void(RecallWording&)>& change,
                             const std::string& dataset) {
        const auto path = folder / (name + ".h5");
        test::write_tokens(path, test::sentences(100), 61);
        RecallWording wrong = wording;
        change(wrong);
        test::write_wording(path, wrong);
        test::expect_error([&] { read_recall_wording(path, job); }, ExitCode::damaged_file, {name, dataset});
    };
    damaged(
        "token", [](RecallWording& w) { w.noise[0][0] = 61; }, "/recall/noise");
    damaged(
        "twice", [](RecallWording& w) { w.values[1] = w.values[0]; }, "/recall/values");
    damaged(
        "few", [](RecallWording& w) { w.keys.resize(3); }, "/recall/keys");
    damaged(
        "empty", [](RecallWording& w) { w.noise[1].clear(); }, "/recall/noise");
    damaged(
        "alias", [](RecallWording& w) { w.alias->before_value = {-1}; }, "/recall/alias");
    damaged(
        "mute", [](RecallWording& w) { w.question = {}; }, "/recall/question");
}

}  // namespace
}  // namespace amalgam
