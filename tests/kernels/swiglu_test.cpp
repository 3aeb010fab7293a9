// SPDX-License-Identifier: Apache-2.0
#include "kernels/swiglu/swiglu.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

constexpr std::int64_t tokens = 21;
const std::int64_t widths[] = {1, 7, 63, 576, 1536, 4864};

struct Results {
    Matrix y, gradient;
};

// Gate and up, and their gradients, are the halves of one fused row.
Results run(ElementType type, std::int64_t width, Matrix fused, const Matrix& y_gradient, int threads) {
    Results out{Matrix(type, tokens, width, 3), Matrix(type, tokens, 2 * width, 5)};
    swiglu_forward({.type = type,
                    .tokens = tokens,
                    .width = width,
                    .gate = fused.from_column(0),
                    .up = fused.from_column(width),
                    .y = out.y},
                   threads);
    swiglu_backward({.type = type,
                     .tokens = tokens,
                     .width = width,
                     .y_gradient = y_gradient,
                     .gate = fused.from_column(0),
                     .up = fused.from_column(width),
                     .gate_gradient = out.gradient.from_column(0),
                     .up_gradient = out.gradient.from_column(width)},
                    threads);
    return out;
}

TEST(Swiglu, agrees_with_the_reference_for_any_number_of_threads) {
    for (ElementType type : both_types) {
        for (std::int64_t width : widths) {
            SCOPED_TRACE(::testing::Message() << "width " << width << " type " << static_cast<int>(type));
            const Matrix fused(type, tokens, 2 * width, random_values(2 * tokens * width, 1, 3), 1);
            const Matrix y_gradient(type, tokens, width, random_values(tokens * width, 2));
            const Results one = run(type, width, fused, y_gradient, 1), two = run(type, width, fused, y_gradient, 2);
            EXPECT_TRUE(one.y == two.y && one.gradient == two.gradient);
            EXPECT_TRUE(one.y.gap_is_untouched() && one.gradient.gap_is_untouched());

            const auto values = fused.values(), dy = y_gradient.values();
            std::vector<double> y(tokens * width), gradient(2 * tokens * width);
            for (std::int64_t t = 0; t < tokens; ++t) {
                const double* row = values.data() + 2 * t * width;
                double* row_gradient = gradient.data() + 2 * t * width;
                reference::swiglu_forward(width, row, row + width, y.data() + t * width);
                reference::swiglu_backward(width, dy.data() + t * width, row, row + width, row_gradient,
                                           row_gradient + width);
            }
            expect_close(one.y.values(), y, type);
            expect_close(one.gradient.values(), gradient, type);
        }
    }
}

TEST(Swiglu, extreme_gates_stay_finite_and_na_n_propagates) {
    const std::vector<double> gates = {-1e30, -100, 100, 1e30, nan, infinity};
    const std::vector<double> ones(gates.size(), 1.0);
    for (ElementType type : both_types) {
        const auto width = static_cast<std::int64_t>(gates.size());
        const Matrix gate(type, 1, width, gates), up(type, 1, width, ones);
        Matrix y(type, 1, width);
        swiglu_forward({.type = type, .tokens = 1, .width = width, .gate = gate, .up = up, .y = y}, 1);
        const auto result = y.values();
        EXPECT_EQ(result[0], 0);
        EXPECT_NEAR(result[1], 0, 1e-30);
        EXPECT_EQ(result[2], 100);
        EXPECT_EQ(result[3], gate.values()[3]);
        EXPECT_TRUE(std::isnan(result[4]));
        EXPECT_EQ(result[5], infinity);
    }
}

TEST(Swiglu, reference_gradient_agrees_with_finite_differences) {
    constexpr std::int64_t count = 9;
    const auto gate = random_values(count, 1, 2), up = random_values(count, 2), y_gradient = random_values(count, 3);
    const auto loss = [&](const auto& gate, const auto& up) {
        std::vector<double> y(count);
        reference::swiglu_forward(count, gate.data(), up.data(), y.data());
        return dot(y, y_gradient);
    };
    std::vector<double> gate_gradient(count), up_gradient(count);
    reference::swiglu_backward(count, y_gradient.data(), gate.data(), up.data(), gate_gradient.data(),
                               up_gradient.data());
    expect_gradient([&](const auto& at) { return loss(at, up); }, gate, gate_gradient);
    expect_gradient([&](const auto& at) { return loss(gate, at); }, up, up_gradient);
}

}  // namespace
}  // namespace amalgam::kernels::testing
