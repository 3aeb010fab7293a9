// SPDX-License-Identifier: Apache-2.0
#include "sharding/flat_parameters.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>

namespace amalgam {
namespace {

class FlatBuffers : public testing::Test {
  protected:
    ParameterStore store;
    Parameter* weight = store.add_fused("fused", {{"a", 3}, {"b", 10}}, {7}, ParameterGroup::mixer, 0);
    Parameter* bias = store.add("bias", {11}, ParameterGroup::rest, 0);

    void fill(FlatParameters& flat, double value) const {
        flat.allocate();
        flat.data().fill_(value);
    }
};

TEST_F(FlatBuffers, shards_of_all_ranks_cover_every_element_once) {
    for (const int64_t ranks : {1, 2, 3, 5, 16}) {
        std::map<const Parameter*, int64_t> next;
        for (int64_t rank = 0; rank < ranks; ++rank) {
            const FlatParameters flat({weight, bias}, at::kFloat, at::kCPU, ranks, rank, true);
            EXPECT_GE(flat.elements(), 13 * 7 + 11);
            EXPECT_EQ(flat.elements(), ranks * flat.shard_elements());
            for (const ShardPiece& piece : flat.pieces()) {
                EXPECT_EQ(piece.in_parameter, next[piece.parameter]);
                EXPECT_EQ(piece.in_shard + rank * flat.shard_elements(),
                          flat.first_of(*piece.parameter) + piece.in_parameter);
                next[piece.parameter] += piece.count;
            }
        }
        EXPECT_EQ(next[weight], weight->elements()) << ranks;
        EXPECT_EQ(next[bias], bias->elements()) << ranks;
    }
}

TEST_F(FlatBuffers, compute_tensors_are_views_of_what_comes_and_goes) {
    FlatParameters flat({weight, bias}, at::kFloat, at::kCPU, 2, 0, true);
    EXPECT_FALSE(flat.is_allocated());
    EXPECT_EQ(weight->compute.sizes(), (std::vector<int64_t>{13, 7}));
    fill(flat, 2.0);
    EXPECT_TRUE(at::equal(weight->compute, at::full({13, 7}, 2.0)));
    flat.release();
    fill(flat, 3.0);
    EXPECT_TRUE(at::equal(bias->compute, at::full({11}, 3.0)));
}

/// A graph that has saved a weight finds it again after the memory has gone and come back.
TEST_F(FlatBuffers, saved_graphs_survive_a_release) {
    FlatParameters flat({weight, bias}, at::kFloat, at::kCPU, 2, 0, true);
    const at::Tensor x = at::ones({2, 7}).requires_grad_(true);
    fill(flat, 2.0);
    const at::Tensor y = at::linear(x, weight->compute);
    flat.release();
    fill(flat, 2.0);
    const auto gradients = torch::autograd::grad({y}, {x, weight->compute}, {at::ones({2, 13})});
    EXPECT_TRUE(at::equal(gradients[0], at::full({2, 7}, 26.0)));
    EXPECT_TRUE(at::equal(gradients[1], at::full({13, 7}, 2.0)));
}

TEST_F(FlatBuffers, fused_parameters_have_named_parts) {
    std::map<std::string, std::pair<std::vector<int64_t>, int64_t>> parts;
    for (const Parameter* p : {weight, bias})
        for_each_named_piece(*p, [&](const std::string& name, const std::vector<int64_t>& shape, int64_t first) {
            parts[name] = {shape, first};
        });
    EXPECT_EQ(parts.size(), 3U);
    EXPECT_EQ(parts["a"], (std::pair{std::vector<int64_t>{3, 7}, int64_t{0}}));
    EXPECT_EQ(parts["b"], (std::pair{std::vector<int64_t>{10, 7}, int64_t{21}}));
    EXPECT_EQ(parts["bias"], (std::pair{std::vector<int64_t>{11}, int64_t{0}}));
}

}  // namespace
}  // namespace amalgam
