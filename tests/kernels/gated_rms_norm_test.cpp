// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_rms_norm/gated_rms_norm.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Case {
    std::int64_t tokens, heads, width;
    bool norm, gate;
};

const Case cases[] = {{1, 1, 1, true, true},     {3, 2, 7, true, true},     {37, 3, 63, true, false},
                      {70, 9, 64, true, true},   {33, 4, 128, false, true}, {5, 2, 20, false, false},
                      {50, 12, 128, true, true}, {9, 4, 256, true, true},   {3, 2, 640, true, true}};

struct Operands {
    Matrix o, z, weight, y_gradient;
};

struct Results {
    Matrix y, o_gradient, z_gradient;
    std::vector<float> rstd, weight_gradient;
};

Operands operands_of(const Case& c, ElementType type) {
    const std::int64_t row = c.heads * c.width, count = c.tokens * row;
    return {Matrix(type, c.tokens, row, random_values(count, 1, 2)),
            Matrix(type, c.tokens, row, random_values(count, 2, 3), 11, Matrix::Gap::odd),  // z
            Matrix(ElementType::float32, 1, c.width, random_values(c.width, 3)),
            Matrix(type, c.tokens, row, random_values(count, 4), 2)};
}

Results run(const Case& c, ElementType type, const Operands& in, int threads) {
    const std::int64_t row = c.heads * c.width;
    Results out{Matrix(type, c.tokens, row, 2), Matrix(type, c.tokens, row, 4), Matrix(type, c.tokens, row, 7),
                std::vector<float>(c.tokens * c.heads), std::vector<float>(c.width)};
    const ConstRows z = c.gate ? ConstRows(in.z) : ConstRows{};
    const float* weight = c.norm ? in.weight.floats() : nullptr;
    gated_rms_norm_forward({.type = type,
                            .tokens = c.tokens,
                            .heads = c.heads,
                            .width = c.width,
                            .epsilon = 1e-5F,
                            .o = in.o,
                            .z = z,
                            .weight = weight,
                            .y = out.y,
                            .rstd = out.rstd.data()},
                           threads);
    gated_rms_norm_backward({.type = type,
                             .tokens = c.tokens,
                             .heads = c.heads,
                             .width = c.width,
                             .y_gradient = in.y_gradient,
                             .o = in.o,
                             .z = z,
                             .weight = weight,
                             .rstd = out.rstd.data(),
                             .o_gradient = out.o_gradient,
                             .z_gradient = c.gate ? Rows(out.z_gradient) : Rows{},
                             .weight_gradient = out.weight_gradient.data()},
                            threads);
    return out;
}

TEST(GatedRmsNorm, agrees_with_the_reference) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            SCOPED_TRACE(::testing::Message() << "width " << c.width << " type " << static_cast<int>(type));
            const Operands in = operands_of(c, type);
            const Results out = run(c, type, in, 2);
            const std::int64_t rows = c.tokens * c.heads, count = rows * c.width;
            const auto o = in.o.values(), z = in.z.values(), weight = in.weight.values();
            const double* z_data = c.gate ? z.data() : nullptr;
            const double* weight_data = c.norm ? weight.data() : nullptr;
            std::vector<double> y(count), rstd(rows), o_gradient(count), z_gradient(count), weight_gradient(c.width);
            reference::gated_rms_norm_forward(rows, c.width, 1e-5F, o.data(), z_data, weight_data, y.data(),
                                              rstd.data());
            reference::gated_rms_norm_backward(rows, c.width, in.y_gradient.values().data(), o.data(), z_data,
                                               weight_data, rstd.data(), o_gradient.data(), z_gradient.data(),
                                               weight_gradient.data());
            expect_close(out.y.values(), y, type);
            expect_close(out.o_gradient.values(), o_gradient, type, 4e-6, 1);
            if (c.gate) expect_close(out.z_gradient.values(), z_gradient, type);
            if (c.norm) expect_close(out.rstd, rstd, ElementType::float32);
            if (c.norm) expect_close(out.weight_gradient, weight_gradient, ElementType::float32, 1e-5);
            EXPECT_TRUE(out.y.gap_is_untouched() && out.o_gradient.gap_is_untouched() &&
                        out.z_gradient.gap_is_untouched());
        }
    }
}

TEST(GatedRmsNorm, does_not_depend_on_the_number_of_threads) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            const Operands in = operands_of(c, type);
            const Results one = run(c, type, in, 1), two = run(c, type, in, 2);
            EXPECT_TRUE(one.y == two.y && one.o_gradient == two.o_gradient && one.z_gradient == two.z_gradient);
            EXPECT_EQ(one.weight_gradient, two.weight_gradient);
        }
    }
}

TEST(GatedRmsNorm, refuses_a_gate_without_its_gradient) {
    const Operands in = operands_of(cases[0], ElementType::float32);
    Matrix o_gradient(ElementType::float32, 1, 1);
    EXPECT_THROW(gated_rms_norm_backward({.type = ElementType::float32,
                                          .tokens = 1,
                                          .width = 1,
                                          .y_gradient = in.y_gradient,
                                          .o = in.o,
                                          .z = in.z,
                                          .o_gradient = o_gradient},
                                         1),
                 std::invalid_argument);
}

TEST(GatedRmsNorm, reference_gradient_agrees_with_finite_differences) {
    constexpr std::int64_t rows = 2, width = 5, count = rows * width;
    const auto o = random_values(count, 1), z = random_values(count, 2), weight = random_values(width, 3);
    const auto y_gradient = random_values(count, 4);
    for (bool norm : {true, false}) {
        const auto loss = [&](const auto& o, const auto& z, const auto& weight) {
            std::vector<double> y(count), rstd(rows);
            reference::gated_rms_norm_forward(rows, width, 1e-5, o.data(), z.data(), norm ? weight.data() : nullptr,
                                              y.data(), rstd.data());
            return dot(y, y_gradient);
        };
        std::vector<double> y(count), rstd(rows), o_gradient(count), z_gradient(count), weight_gradient(width);
        reference::gated_rms_norm_forward(rows, width, 1e-5, o.data(), z.data(), norm ? weight.data() : nullptr,
                                          y.data(), rstd.data());
        reference::gated_rms_norm_backward(rows, width, y_gradient.data(), o.data(), z.data(),
                                           norm ? weight.data() : nullptr, rstd.data(), o_gradient.data(),
                                           z_gradient.data(), weight_gradient.data());
        expect_gradient([&](const auto& at) { return loss(at, z, weight); }, o, o_gradient);
        expect_gradient([&](const auto& at) { return loss(o, at, weight); }, z, z_gradient);
        if (norm) expect_gradient([&](const auto& at) { return loss(o, z, at); }, weight, weight_gradient);
    }
}

}  // namespace
}  // namespace amalgam::kernels::testing
