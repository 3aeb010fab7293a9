// SPDX-License-Identifier: Apache-2.0
#include "kernels/rms_norm/rms_norm.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Case {
    std::int64_t tokens, heads, width;
    bool residual;
};

const Case cases[] = {{1, 1, 1, false},   {3, 1, 7, true},    {37, 1, 63, false},  {200, 1, 576, true},
                      {65, 9, 64, false}, {2, 1, 4097, true}, {1030, 1, 5, false}, {40, 12, 128, false},
                      {9, 1, 1536, true}, {7, 1, 3072, true}, {3, 1, 5120, true},  {2, 1, 8192, true}};

struct Results {
    Matrix sum, y, x_gradient;
    std::vector<float> rstd, weight_gradient;
};

struct Operands {
    Matrix x, residual, weight, y_gradient, sum_gradient;
};

Operands operands_of(const Case& c, ElementType type) {
    const std::int64_t row = c.heads * c.width, count = c.tokens * row;
    return {Matrix(type, c.tokens, row, random_values(count, 1, 2), 3),
            Matrix(type, c.tokens, row, random_values(count, 2), 5),
            Matrix(ElementType::float32, 1, c.width, random_values(c.width, 3)),
            Matrix(type, c.tokens, row, random_values(count, 4), 1),
            Matrix(type, c.tokens, row, random_values(count, 5))};
}

Results run(const Case& c, ElementType type, const Operands& in, int threads) {
    const std::int64_t row = c.heads * c.width;
    Results out{Matrix(type, c.tokens, row, 2), Matrix(type, c.tokens, row, 4), Matrix(type, c.tokens, row, 6),
                std::vector<float>(c.tokens * c.heads), std::vector<float>(c.width)};
    rms_norm_forward({.type = type,
                      .tokens = c.tokens,
                      .heads = c.heads,
                      .width = c.width,
                      .epsilon = 1e-5F,
                      .x = in.x,
                      .residual = c.residual ? ConstRows(in.residual) : ConstRows{},
                      .sum = c.residual ? Rows(out.sum) : Rows{},
                      .weight = in.weight.floats(),
                      .y = out.y,
                      .rstd = out.rstd.data()},
                     threads);
    rms_norm_backward({.type = type,
                       .tokens = c.tokens,
                       .heads = c.heads,
                       .width = c.width,
                       .y_gradient = in.y_gradient,
                       .sum_gradient = c.residual ? ConstRows(in.sum_gradient) : ConstRows{},
                       .x = c.residual ? ConstRows(out.sum) : ConstRows(in.x),
                       .weight = in.weight.floats(),
                       .rstd = out.rstd.data(),
                       .x_gradient = out.x_gradient,
                       .weight_gradient = out.weight_gradient.data()},
                      threads);
    return out;
}

TEST(RmsNorm, agrees_with_the_reference) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            SCOPED_TRACE(::testing::Message() << "width " << c.width << " type " << static_cast<int>(type));
            const Operands in = operands_of(c, type);
            const Results out = run(c, type, in, 2);
            const std::int64_t rows = c.tokens * c.heads, count = rows * c.width;
            std::vector<double> sum(count), y(count), rstd(rows), x_gradient(count), weight_gradient(c.width);
            // The kernel normalises the rounded sum, so the reference starts from it.
            const std::vector<double> x = c.residual ? out.sum.values() : in.x.values();
            reference::rms_norm_forward(rows, c.width, 1e-5F, x.data(), nullptr, in.weight.values().data(), sum.data(),
                                        y.data(), rstd.data());
            reference::rms_norm_backward(
                rows, c.width, in.y_gradient.values().data(), c.residual ? in.sum_gradient.values().data() : nullptr,
                x.data(), in.weight.values().data(), rstd.data(), x_gradient.data(), weight_gradient.data());
            if (c.residual) {
                std::vector<double> exact = in.x.values();
                const std::vector<double> residual = in.residual.values();
                for (std::int64_t i = 0; i < count; ++i) exact[i] += residual[i];
                expect_close(out.sum.values(), exact, type);
            }
            expect_close(out.y.values(), y, type);
            expect_close(out.rstd, rstd, ElementType::float32);
            expect_close(out.x_gradient.values(), x_gradient, type, 4e-6, 1);
            expect_close(out.weight_gradient, weight_gradient, ElementType::float32, 1e-5);
            EXPECT_TRUE(out.sum.gap_is_untouched() && out.y.gap_is_untouched() && out.x_gradient.gap_is_untouched());
        }
    }
}

TEST(RmsNorm, does_not_depend_on_the_number_of_threads) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            const Operands in = operands_of(c, type);
            const Results one = run(c, type, in, 1), two = run(c, type, in, 2);
            EXPECT_TRUE(one.y == two.y && one.sum == two.sum && one.x_gradient == two.x_gradient);
            EXPECT_EQ(one.rstd, two.rstd);
            EXPECT_EQ(one.weight_gradient, two.weight_gradient);
        }
    }
}

TEST(RmsNorm, na_n_stays_in_its_row) {
    for (ElementType type : both_types) {
        std::vector<double> values = random_values(2 * 37, 1);
        values[5] = nan;
        const Matrix x(type, 2, 37, values), weight(ElementType::float32, 1, 37, random_values(37, 2));
        Matrix y(type, 2, 37);
        rms_norm_forward({.type = type, .tokens = 2, .width = 37, .x = x, .weight = weight.floats(), .y = y}, 1);
        const std::vector<double> result = y.values();
        for (int i = 0; i < 37; ++i) {
            EXPECT_TRUE(std::isnan(result[i]));
            EXPECT_TRUE(std::isfinite(result[37 + i]));
        }
    }
}

TEST(RmsNorm, reference_gradient_agrees_with_finite_differences) {
    constexpr std::int64_t rows = 2, width = 5, count = rows * width;
    const auto x = random_values(count, 1), residual = random_values(count, 2), weight = random_values(width, 3);
    const auto y_gradient = random_values(count, 4), sum_gradient = random_values(count, 5);
    const auto loss = [&](const std::vector<double>& x, const std::vector<double>& weight) {
        std::vector<double> sum(count), y(count), rstd(rows);
        reference::rms_norm_forward(rows, width, 1e-5, x.data(), residual.data(), weight.data(), sum.data(), y.data(),
                                    rstd.data());
        return dot(y, y_gradient) + dot(sum, sum_gradient);
    };
    std::vector<double> sum(count), y(count), rstd(rows), x_gradient(count), weight_gradient(width);
    reference::rms_norm_forward(rows, width, 1e-5, x.data(), residual.data(), weight.data(), sum.data(), y.data(),
                                rstd.data());
    reference::rms_norm_backward(rows, width, y_gradient.data(), sum_gradient.data(), sum.data(), weight.data(),
                                 rstd.data(), x_gradient.data(), weight_gradient.data());
    expect_gradient([&](const auto& at) { return loss(at, weight); }, x, x_gradient);
    expect_gradient([&](const auto& at) { return loss(x, at); }, weight, weight_gradient);
}

}  // namespace
}  // namespace amalgam::kernels::testing
