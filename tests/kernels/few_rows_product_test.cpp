// SPDX-License-Identifier: Apache-2.0
#include "kernels/few_rows_product/few_rows_product.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

Matrix run(ElementType type, std::int64_t rows, std::int64_t in, std::int64_t out, const Matrix& x,
           const Matrix& weight, const Matrix* bias, int threads) {
    Matrix y(type, rows, out, 3);
    few_rows_product({.type = type,
                      .rows = rows,
                      .in = in,
                      .out = out,
                      .x = x,
                      .weight = weight,
                      .bias = bias ? bias->data() : nullptr,
                      .y = y},
                     threads);
    return y;
}

TEST(FewRowsProduct, agrees_with_the_reference_and_does_not_depend_on_threads_or_other_rows) {
    for (const ElementType type : both_types)
        for (const std::int64_t rows : {1, 2, 3, 5, 8, 9, 16, 17, 53})
            for (const auto& [in, out] :
                 {std::pair<std::int64_t, std::int64_t>{1, 1}, {15, 2}, {33, 7}, {40, 45}, {576, 320}})
                for (const bool biased : {false, true}) {
                    SCOPED_TRACE(::testing::Message() << rows << " rows, " << in << " to " << out << ", type "
                                                      << static_cast<int>(type) << ", bias " << biased);
                    const Matrix x(type, rows, in, random_values(rows * in, 1), 1);
                    const Matrix weight(type, out, in, random_values(out * in, 2), 2);
                    const Matrix bias(type, 1, out, random_values(out, 3));
                    const Matrix* given = biased ? &bias : nullptr;
                    const Matrix one = run(type, rows, in, out, x, weight, given, 1);
                    EXPECT_TRUE(one == run(type, rows, in, out, x, weight, given, 2));
                    EXPECT_TRUE(one.gap_is_untouched());

                    const auto values = x.values(), weights = weight.values(), biases = bias.values();
                    std::vector<double> expected(rows * out);
                    reference::few_rows_product(rows, in, out, values.data(), weights.data(),
                                                biased ? biases.data() : nullptr, expected.data());
                    expect_close(one.values(), expected, type, 4e-6, std::sqrt(static_cast<double>(in)));

                    const Matrix last(type, 1, in, {values.end() - in, values.end()});
                    const auto alone = run(type, 1, in, out, last, weight, given, 1).values(), all = one.values();
                    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.end() - out));
                }
}

}  // namespace
}  // namespace amalgam::kernels::testing
