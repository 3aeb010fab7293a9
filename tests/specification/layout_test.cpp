// SPDX-License-Identifier: Apache-2.0
#include "specification/layout.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace amalgam {
namespace {

TEST(Layout, keeps_softmax_where_told) {
    const Layout layout = keep_softmax(5, "gated_delta_net", {3, 1});
    EXPECT_EQ(layout, (Layout{"gated_delta_net", "softmax", "gated_delta_net", "softmax", "gated_delta_net"}));
    EXPECT_EQ(softmax_layers(layout), (std::vector<int64_t>{1, 3}));
    EXPECT_EQ(describe(layout), "gated_delta_net x 3, softmax at {1, 3}");
    EXPECT_EQ(describe(all_linear(4, "gated_delta_net")), "gated_delta_net x 4");
    EXPECT_EQ(describe(all_softmax(4)), "softmax x 4");
    EXPECT_TRUE(softmax_layers(all_linear(4, "gated_delta_net")).empty());
    EXPECT_THROW(keep_softmax(5, "gated_delta_net", {5}), std::out_of_range);
}

}  // namespace
}  // namespace amalgam
