// SPDX-License-Identifier: Apache-2.0
#include "selection/measurement.h"

#include <gtest/gtest.h>

#include "rules/selection_rule.h"

namespace amalgam {
namespace {

TEST(Measurement, is_there_for_the_scorer_of_every_rule) {
    int64_t scorers = 0;
    for (const SelectionRule& rule : selection_rules()) {
        if (rule.scorer == nullptr) continue;
        EXPECT_TRUE(can_measure(*rule.scorer)) << rule.name;
        ++scorers;
    }
    EXPECT_GT(scorers, 0);
    const Scorer made_up = {"made_up", restored_layer_scorer().candidates};
    EXPECT_FALSE(can_measure(made_up));
}

}  // namespace
}  // namespace amalgam
