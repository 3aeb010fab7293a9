// SPDX-License-Identifier: Apache-2.0
#include "training/batches.h"

#include <numeric>
#include <set>
#include <tuple>

#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../storage/temporary_folder.h"
#include "small_corpus.h"

namespace amalgam {
namespace {

constexpr int64_t length = 5, sequences = 23;

class BatchOrder : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        std::vector<int64_t> tokens(size_t(sequences * length + 2));  // an incomplete sequence at the end is not used
        std::iota(tokens.begin(), tokens.end(), 0);
        test::write_tokens(folder / "tokens.h5", tokens, 1000);
        file = std::make_unique<TokenFile>(folder / "tokens.h5");
    }
    static TrainingJob plan(int64_t sequence_length = length) {
        TrainingJob plan;
        plan.sequence_length = sequence_length;
        return plan;
    }
    Batches batches(uint64_t seed = 1, const std::string& stage = "align") const {
        return {*file, plan(), seed, stage};
    }
    std::unique_ptr<TokenFile> file;
};

TEST_F(BatchOrder, every_epoch_has_every_sequence_once) {
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
        const at::Tensor all = batches().sequences(epoch * sequences, sequences);
        std::set<int64_t> seen;
        for (int64_t i = 0; i < sequences; ++i) {
            const int64_t first = all[i][0].item<int64_t>();
            EXPECT_EQ(first % length, 0);
            EXPECT_TRUE(at::equal(all[i], at::arange(first, first + length, at::kLong)));
            seen.insert(first / length);
        }
        EXPECT_EQ(int64_t(seen.size()), sequences) << "epoch " << epoch;
        EXPECT_EQ(*seen.rbegin(), sequences - 1);
    }
}

TEST_F(BatchOrder, epochs_seeds_and_stages_have_their_own_order) {
    const at::Tensor first = batches().sequences(0, sequences);
    EXPECT_TRUE(at::equal(first, batches().sequences(0, sequences)));
    EXPECT_FALSE(at::equal(first, batches().sequences(sequences, sequences)));
    EXPECT_FALSE(at::equal(first, batches(2).sequences(0, sequences)));
    EXPECT_FALSE(at::equal(first, batches(1, "distill").sequences(0, sequences)));
}

/// Ranks take consecutive parts of the one global order, across epochs too.
TEST_F(BatchOrder, the_order_does_not_depend_on_how_it_is_cut) {
    const at::Tensor whole = batches().sequences(15, 24);
    for (const int64_t part : {1, 2, 3, 8}) {
        std::vector<at::Tensor> parts;
        for (int64_t first = 0; first < 24; first += part) parts.push_back(batches().sequences(15 + first, part));
        EXPECT_TRUE(at::equal(at::cat(parts, 0), whole)) << part;
    }
}

/// What every phase reads, as first token and length of each sequence.
class PhaseOrder : public BatchOrder {
  protected:
    /// Blocks of 20 tokens, 5 in the file: 12 parts of 5 tokens are 3 blocks, 4 of 10 are 2, then whole ones.
    static TrainingJob phases() {
        TrainingJob job;
        job.phases = {{60, 5, 4, 0}, {40, 10, 2, 0}, {60, 20, 1, 0}};
        return job;
    }
    /// `sequences` of the order that begins at `cursor`.
    std::vector<int64_t> first_tokens(const TrainingJob& job, int64_t cursor, int64_t count) const {
        const Batches order(*file, job, 1, "align");
        std::vector<int64_t> found;
        for (int64_t i = 0; i < count; ++i) {
            const at::Tensor row = order.sequences(cursor + i, 1)[0];
            EXPECT_TRUE(at::equal(row, at::arange(row[0].item<int64_t>(), row[0].item<int64_t>() + row.size(0))));
            EXPECT_EQ(row.size(0), TrainingPlan(job).phase_of_sequence(cursor + i).sequence_length);
            found.push_back(row[0].item<int64_t>());
        }
        return found;
    }
};

TEST_F(PhaseOrder, nothing_is_read_twice_before_all_was_read) {
    std::set<int64_t> seen;
    int64_t read = 0;
    for (const auto& [cursor, count, length] : {std::tuple<int64_t, int64_t, int64_t>{0, 12, 5}, {12, 4, 10}}) {
        const auto firsts = first_tokens(phases(), cursor, count);
        EXPECT_FALSE(std::is_sorted(firsts.begin(), firsts.end()));
        for (const int64_t first : firsts)
            for (int64_t token = first; token < first + length; ++token) seen.insert(token);
        read += count * length;
        EXPECT_EQ(int64_t(seen.size()), read);
    }
    EXPECT_EQ(read, 100) << "five blocks of 20 tokens; 17 are left over";
    std::set<int64_t> again;
    for (const int64_t first : first_tokens(phases(), 16, 5)) again.insert(first);
    EXPECT_EQ(again, (std::set<int64_t>{0, 20, 40, 60, 80})) << "the next epoch";
}

/// 8 blocks of two parts in a file of 5, of which the first epoch has 4 left.
TEST_F(PhaseOrder, a_phase_ends_an_epoch_before_it_begins_the_next) {
    TrainingJob job;
    job.phases = {{20, 20, 1, 0}, {160, 10, 1, 0}, {20, 20, 1, 0}};
    const auto one = first_tokens(job, 0, 1), parts = first_tokens(job, 1, 16), last = first_tokens(job, 17, 1);
    const std::set<int64_t> first_epoch(parts.begin(), parts.begin() + 8), second_epoch(parts.begin() + 8, parts.end());
    EXPECT_EQ(first_epoch.size(), 8U);
    EXPECT_FALSE(first_epoch.contains(one[0]) || first_epoch.contains(one[0] + 10));
    EXPECT_EQ(second_epoch.size(), 8U);
    EXPECT_FALSE(second_epoch.contains(last[0]) || second_epoch.contains(last[0] + 10));
}

TEST_F(PhaseOrder, parts_of_a_block_are_not_read_one_after_another) {
    const auto firsts = first_tokens(phases(), 0, 12);
    int64_t together = 0;
    for (size_t i = 1; i < firsts.size(); ++i) together += firsts[i] / 20 == firsts[i - 1] / 20;
    EXPECT_LT(together, 7);
}

TEST_F(PhaseOrder, phases_of_one_length_have_the_order_of_a_stage_without_phases) {
    TrainingJob job;
    job.phases = {{30, length, 2, 0}, {40, length, 4, 0}, {50, length, 1, 0}};
    EXPECT_EQ(first_tokens(job, 0, 50), first_tokens(plan(), 0, 50));
}

TEST_F(BatchOrder, a_file_without_one_sequence_is_refused) {
    test::expect_error([&] { Batches(*file, plan(1000), 1, "align"); }, ExitCode::bad_input,
                       {"data.training", "117", "1000"});
}

/// Repeats belong to a place in the global order: they are the same however it is cut, and others in the next epoch.
TEST_F(BatchOrder, repeats_belong_to_the_cursor) {
    TrainingJob repeating = plan(39);  // three sequences in the file
    repeating.repeat_fraction = 0.25;
    const Batches repeated(*file, repeating, 1, "align"), plain(*file, plan(39), 1, "align");
    const at::Tensor whole = repeated.sequences(0, 6);
    EXPECT_TRUE(at::equal(at::cat({repeated.sequences(0, 1), repeated.sequences(1, 5)}), whole));
    EXPECT_FALSE(at::equal(plain.sequences(0, 6), whole));
    const auto where = [&](int64_t row) { return whole[row].ne(plain.sequences(0, 6)[row]); };
    EXPECT_FALSE(at::equal(where(0), where(1)));
}

/// One of three sequences of 39 tokens is questions; the others are as without.
TEST_F(BatchOrder, questions_belong_to_the_cursor_and_leave_other_sequences_as_they_are) {
    TrainingJob asking = plan(39);
    asking.question_fraction = 0.34;
    asking.question_kinds = {"noise", "pairs"};
    const Batches asked(*file, asking, 1, "align", DocumentBorders::joined, test::small_wording()),
        plain(*file, plan(39), 1, "align");
    const at::Tensor whole = asked.sequences(0, 9), text = plain.sequences(0, 9);
    EXPECT_TRUE(at::equal(at::cat({asked.sequences(0, 1), asked.sequences(1, 4), asked.sequences(5, 4)}), whole));
    const QuestionSequences questions(asking, test::small_wording(), *file, 1, "align");
    int64_t count = 0;
    for (int64_t i = 0; i < 9; ++i) {
        count += questions.has(i);
        const auto made = questions.make(i, 39).tokens;
        const at::Tensor expected = questions.has(i) ? at::tensor(at::ArrayRef<int32_t>(made), at::kLong) : text[i];
        EXPECT_TRUE(at::equal(whole[i], expected)) << i;
    }
    EXPECT_EQ(count, 3);
    asking.repeat_fraction = 0.25;
    const at::Tensor both =
        Batches(*file, asking, 1, "align", DocumentBorders::joined, test::small_wording()).sequences(0, 9);
    for (int64_t i = 0; i < 9; ++i) EXPECT_TRUE(!questions.has(i) || at::equal(both[i], whole[i])) << i;
    EXPECT_FALSE(at::equal(both, whole));
}

TEST_F(PhaseOrder, questions_have_the_length_of_their_phase) {
    TrainingJob asking;
    asking.phases = {{240, 20, 4, 0}, {160, 40, 2, 0}};
    asking.question_fraction = 0.5;
    asking.question_kinds = {"noise"};
    const Batches order(*file, asking, 1, "align", DocumentBorders::joined, test::small_wording());
    const at::Tensor shorter = order.sequences(0, 12), longer = order.sequences(12, 4);
    EXPECT_EQ(shorter.size(1), 20);
    EXPECT_EQ(longer.size(1), 40);
    for (const at::Tensor& rows : {shorter, longer})
        for (int64_t i = 1; i < rows.size(0); i += 2) {
            EXPECT_EQ(rows[i][0].item<int64_t>(), 1) << "the wording's start";
            EXPECT_GT(rows[i].eq(26).sum().item<int64_t>(), 0) << "a question";
        }
}

TEST_F(BatchOrder, borders_of_documents_belong_to_the_sequences) {
    const std::vector<int64_t> starts = {2, 5, 6, 40, 43, 44, 101};
    std::vector<int64_t> tokens(size_t(sequences * length));
    std::iota(tokens.begin(), tokens.end(), 0);
    test::write_tokens(folder / "documents.h5", tokens, 1000, {}, "none", starts);
    const TokenFile documents(folder / "documents.h5");
    const Batches separate(documents, plan(), 1, "align", DocumentBorders::separate);
    EXPECT_TRUE(at::equal(separate.sequences(0, 30), batches().sequences(0, 30))) << "the order is the same";
    const Borders found = separate.borders(0, sequences);
    ASSERT_EQ(int64_t(found.size()), sequences);
    int64_t all = 0;
    for (int64_t i = 0; i < sequences; ++i) {
        const int64_t first = separate.sequences(i, 1)[0][0].item<int64_t>();
        std::vector<int64_t> expected;
        for (const int64_t start : starts)
            if (start > first && start < first + length) expected.push_back(start - first);
        EXPECT_EQ(found[size_t(i)], expected) << first;
        all += int64_t(expected.size());
    }
    EXPECT_EQ(all, 5) << "two documents begin with a sequence";
    EXPECT_EQ(separate.texts(0, sequences), sequences + 5);
    EXPECT_TRUE(Batches(documents, plan(), 1, "align").borders(0, sequences).empty());
    EXPECT_EQ(Batches(documents, plan(), 1, "align").texts(0, sequences), sequences);
    EXPECT_EQ(read_borders(documents, length, 0, 2), (Borders{{2}, {1}}));
}

/// 13 documents of 40 to 64 tokens, packed into sequences of 128: each text of a sequence is a whole document, unless
/// it is one of the few that fill the room of others.
TEST_F(BatchOrder, packed_documents_are_whole) {
    std::vector<int64_t> starts;
    for (int64_t d = 0, end = 0; d < 13; ++d) starts.push_back(end += 40 + 2 * d);
    std::vector<int64_t> tokens(size_t(starts.back()));
    std::iota(tokens.begin(), tokens.end(), 0);
    starts.pop_back();
    test::write_tokens(folder / "documents.h5", tokens, 1000, {}, "none", starts);
    const TokenFile documents(folder / "documents.h5");
    const Batches packed(documents, plan(128), 1, "align", DocumentBorders::separate, {}, DocumentPacking::best_fit);
    const int64_t count = documents.sequences(128);
    const at::Tensor all = packed.sequences(0, count);
    const Borders borders = packed.borders(0, count);
    int64_t whole = 0, texts = 0;
    std::set<int64_t> seen;
    for (int64_t s = 0; s < count; ++s) {
        std::vector<int64_t> ends = borders[size_t(s)];
        ends.push_back(128);
        int64_t first = 0;
        for (const int64_t end : ends) {
            const int64_t begin = all[s][first].item<int64_t>();
            EXPECT_TRUE(at::equal(all[s].narrow(0, first, end - first), at::arange(begin, begin + end - first)));
            for (int64_t token = begin; token < begin + end - first; ++token) EXPECT_TRUE(seen.insert(token).second);
            whole += documents.borders(begin > 0 ? begin - 1 : 0, end - first + 2).size() == (begin > 0 ? 2U : 1U);
            ++texts;
            first = end;
        }
    }
    EXPECT_EQ(packed.texts(0, count), texts);
    EXPECT_GE(whole, 9);
    EXPECT_NE(packed.packing_in_words().find("of the first 13: 0 are longer"), std::string::npos);
    EXPECT_TRUE(at::equal(at::cat({packed.sequences(0, 1), packed.sequences(1, count - 1)}), all));
    EXPECT_FALSE(at::equal(packed.sequences(count, count), all)) << "the next epoch";
}

TEST_F(BatchOrder, questions_are_one_text) {
    std::vector<int64_t> tokens(115);
    std::iota(tokens.begin(), tokens.end(), 0);
    test::write_tokens(folder / "documents.h5", tokens, 1000, {}, "none", {20, 60, 100});
    const TokenFile documents(folder / "documents.h5");
    TrainingJob asking = plan(38);
    asking.question_fraction = 0.34;
    asking.question_kinds = {"noise"};
    const Batches asked(documents, asking, 1, "align", DocumentBorders::separate, test::small_wording()),
        plain(documents, plan(38), 1, "align", DocumentBorders::separate);
    const QuestionSequences questions(asking, test::small_wording(), documents, 1, "align");
    int64_t count = 0;
    for (int64_t i = 0; i < 9; ++i) {
        ASSERT_EQ(plain.borders(i, 1)[0].size(), 1U) << i;
        EXPECT_EQ(asked.borders(i, 1)[0], questions.has(i) ? std::vector<int64_t>() : plain.borders(i, 1)[0]) << i;
        count += questions.has(i);
    }
    EXPECT_EQ(count, 3);
    EXPECT_EQ(asked.texts(0, 9), 15);
}

TEST_F(BatchOrder, repeats_stay_in_their_document) {
    TrainingJob repeating = plan(115);  // the whole file
    repeating.repeat_fraction = 0.5;
    std::vector<int64_t> tokens(115);
    std::iota(tokens.begin(), tokens.end(), 0);
    test::write_tokens(folder / "documents.h5", tokens, 1000, {}, "none", {50});
    const TokenFile documents(folder / "documents.h5");
    const at::Tensor joined = Batches(documents, repeating, 1, "align").sequences(0, 20),
                     separate = Batches(documents, repeating, 1, "align", DocumentBorders::separate).sequences(0, 20);
    EXPECT_LT(joined.narrow(1, 50, 65).min().item<int64_t>(), 50);
    EXPECT_EQ(separate.narrow(1, 50, 65).min().item<int64_t>(), 50);
    EXPECT_FALSE(at::equal(separate, at::arange(115).expand({20, 115})));
}

TEST_F(BatchOrder, held_out_sequences_keep_the_files_order) {
    EXPECT_TRUE(at::equal(read_sequences(*file, length, 3, 2), at::arange(15, 25, at::kLong).view({2, 5})));
}

}  // namespace
}  // namespace amalgam
