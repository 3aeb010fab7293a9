// SPDX-License-Identifier: Apache-2.0
// The rule `halo` on HALO's own measurements, against the layers of its released models.
//
// Source of the numbers: github.com/thunlp/hybrid-linear-attention, attn-layer-selection/results (logs of Qwen3 with
// one layer linear) and halo/configs/model/hypenet (mixer_types of the models made of them).
#include <gtest/gtest.h>

#include <algorithm>

#include "made_up_scores_of_layers.h"
#include "rules/selection_rule.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;

/// By the layer that is linear, in units of 1e-4.
struct PublishedLogs {
    std::vector<double> recall;    // fda + ruler_qa_squad (4096 tokens) + swde
    std::vector<double> accuracy;  // acc_norm of arc_challenge + arc_easy + hellaswag
};

const PublishedLogs qwen3_1_7b = {
    {19018, 21605, 20812, 21433, 21291, 22297, 20587, 21299, 21774, 20805, 21748, 20649, 20809, 21774,
     21545, 21943, 21050, 21158, 21261, 20541, 21563, 19592, 21823, 21191, 20808, 20114, 21023, 21649},
    {9323,  16643, 17411, 17517, 17269, 17397, 17351, 17259, 17485, 17407, 17167, 17182, 17303, 17347,
     17352, 17381, 17374, 17175, 17272, 17329, 17123, 17305, 17128, 17325, 17329, 17308, 17337, 17381}};
const PublishedLogs qwen3_4b = {{24644, 25302, 25346, 25613, 25498, 25241, 25391, 24367, 25331, 25446, 25440, 25424,
                                 25425, 25341, 25019, 24778, 25246, 25360, 25257, 25246, 25250, 25101, 24743, 25301,
                                 24382, 25352, 25425, 25345, 25482, 25393, 25434, 25264, 25334, 24746, 25008, 25359},
                                {21096, 21062, 20936, 20855, 20915, 20930, 20897, 20961, 20778, 20907, 20893, 20907,
                                 20881, 20882, 20886, 20888, 20883, 20836, 20859, 20850, 20881, 20837, 20837, 20930,
                                 20810, 20863, 20840, 20901, 20921, 20895, 20944, 20962, 20903, 20911, 20936, 20827}};
const PublishedLogs qwen3_8b = {{23136, 24025, 23637, 24040, 24041, 23904, 24075, 23342, 24181, 24072, 24192, 24164,
                                 24220, 23776, 23936, 23834, 24272, 23967, 24106, 24252, 23935, 24013, 23530, 24034,
                                 23247, 24105, 23784, 24268, 24138, 23951, 24167, 23968, 24097, 23251, 24031, 24114},
                                {16683, 21298, 21257, 21176, 21304, 21128, 21334, 21282, 21236, 21244, 21347, 21213,
                                 21197, 21185, 21148, 21125, 21244, 21085, 21174, 21228, 21203, 21103, 21111, 21139,
                                 21269, 21179, 21174, 21250, 21227, 21161, 21251, 21212, 21123, 21252, 21286, 21287}};

/// The most important first.
Layers chosen_from(const PublishedLogs& logs, int64_t budget) {
    const SelectionRule& halo = selection_rule("halo");
    const auto layers = int64_t(logs.recall.size());
    const auto scored = test::scores_of(*halo.scorer, layers, [&](int64_t layer, ScoredCandidate& one) {
        one.measured = {{"recall", logs.recall[size_t(layer)] / 3e4}, {"accuracy", logs.accuracy[size_t(layer)] / 3e4}};
    });
    Options options = default_values(halo.options);
    options["budget"] = std::to_string(budget);
    return halo.choose(options, layers, scored);
}

Layers ascending(Layers layers) {
    std::sort(layers.begin(), layers.end());
    return layers;
}

TEST(PublishedHalo, keeps_the_layers_of_the_released_models) {
    EXPECT_EQ(ascending(chosen_from(qwen3_1_7b, 7)), (Layers{2, 3, 6, 8, 9, 21, 25}));
    EXPECT_EQ(ascending(chosen_from(qwen3_8b, 9)), (Layers{1, 2, 4, 6, 7, 10, 24, 33, 34}));
}

/// The released model of 4B has layer 31 where the formula has 34; by the logs 31 comes tenth.
TEST(PublishedHalo, keeps_all_but_one_layer_of_the_4b_model) {
    EXPECT_EQ(ascending(chosen_from(qwen3_4b, 9)), (Layers{0, 1, 7, 14, 15, 22, 24, 33, 34}));
    EXPECT_EQ(chosen_from(qwen3_4b, 10).back(), 31);
}

/// As Table 7 of arXiv 2601.22156 prints it, but for the places of 8 and 21, second and seventh there the other way
/// round: 3 21 2 9 25 6 8.
TEST(PublishedHalo, orders_the_layers_of_1_7b_as_the_paper_does) {
    EXPECT_EQ(chosen_from(qwen3_1_7b, 28), (Layers{3,  8,  2,  9, 21, 25, 6,  19, 16, 24, 26, 12, 23, 11,
                                                   27, 14, 18, 4, 7,  17, 13, 15, 20, 10, 22, 1,  0,  5}));
}

}  // namespace
}  // namespace amalgam
