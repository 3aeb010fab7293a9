// SPDX-License-Identifier: Apache-2.0
#include "training/batches.h"

#include <numeric>
#include <set>

#include "../model/small_model.h"
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

TEST_F(BatchOrder, held_out_sequences_keep_the_files_order) {
    EXPECT_TRUE(at::equal(read_sequences(*file, length, 3, 2), at::arange(15, 25, at::kLong).view({2, 5})));
}

}  // namespace
}  // namespace amalgam
