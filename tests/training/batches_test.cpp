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
    Batches batches(uint64_t seed = 1, const std::string& stage = "align") const {
        return {*file, length, seed, stage};
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
    test::expect_error([&] { Batches(*file, 1000, 1, "align"); }, ExitCode::bad_input,
                       {"data.training", "117", "1000"});
}

TEST_F(BatchOrder, held_out_sequences_keep_the_files_order) {
    EXPECT_TRUE(at::equal(read_sequences(*file, length, 3, 2), at::arange(15, 25, at::kLong).view({2, 5})));
}

}  // namespace
}  // namespace amalgam
