// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary/rotary.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Case {
    std::int64_t sequences, positions, heads, width;
};

const Case cases[] = {{1, 1, 1, 2}, {2, 7, 3, 14}, {3, 21, 12, 64}, {1, 5, 2, 126}, {2, 9, 4, 128}};

struct Tables {
    std::vector<float> cos, sin;
    std::vector<double> exact_cos, exact_sin;  // the same values
};

Tables tables_of(std::int64_t positions, std::int64_t width) {
    Tables tables;
    for (std::int64_t p = 0; p < positions; ++p) {
        for (std::int64_t j = 0; j < width; ++j) {
            const double exponent = static_cast<double>(2 * (j % (width / 2))) / static_cast<double>(width);
            const double angle = static_cast<double>(p + 3) * std::pow(1e4, -exponent);
            tables.cos.push_back(static_cast<float>(std::cos(angle)));
            tables.sin.push_back(static_cast<float>(std::sin(angle)));
        }
    }
    tables.exact_cos.assign(tables.cos.begin(), tables.cos.end());
    tables.exact_sin.assign(tables.sin.begin(), tables.sin.end());
    return tables;
}

TEST(Rotary, agrees_with_the_reference_for_any_number_of_threads) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            SCOPED_TRACE(::testing::Message() << "width " << c.width << " type " << static_cast<int>(type));
            const std::int64_t tokens = c.sequences * c.positions, row = c.heads * c.width;
            const Tables tables = tables_of(c.positions, c.width);
            const Matrix x(type, tokens, row, random_values(tokens * row, 1), 9);
            std::vector<double> y(tokens * row), dx(tokens * row);
            reference::rotary_forward(tokens, c.heads, c.width, c.positions, tables.exact_cos.data(),
                                      tables.exact_sin.data(), x.values().data(), y.data());
            reference::rotary_backward(tokens, c.heads, c.width, c.positions, tables.exact_cos.data(),
                                       tables.exact_sin.data(), x.values().data(), dx.data());
            Rotary arguments{.type = type,
                             .tokens = tokens,
                             .heads = c.heads,
                             .width = c.width,
                             .positions = c.positions,
                             .cos = tables.cos.data(),
                             .sin = tables.sin.data(),
                             .x = x};
            Matrix one(type, tokens, row, 4), two(type, tokens, row, 4), backward(type, tokens, row);
            arguments.y = one;
            rotary_forward(arguments, 1);
            arguments.y = two;
            rotary_forward(arguments, 2);
            arguments.y = backward;
            rotary_backward(arguments, 2);
            EXPECT_TRUE(one == two);
            EXPECT_TRUE(one.gap_is_untouched());
            expect_close(one.values(), y, type);
            expect_close(backward.values(), dx, type);

            Matrix in_place = x;
            arguments.x = in_place;
            arguments.y = in_place;
            rotary_forward(arguments, 2);
            EXPECT_EQ(in_place.values(), one.values());
        }
    }
}

TEST(Rotary, backward_undoes_forward) {
    constexpr std::int64_t tokens = 6, heads = 2, width = 8;
    const Tables tables = tables_of(tokens, width);
    const auto x = random_values(tokens * heads * width, 1);
    std::vector<double> y(x.size()), back(x.size());
    reference::rotary_forward(tokens, heads, width, tokens, tables.exact_cos.data(), tables.exact_sin.data(), x.data(),
                              y.data());
    reference::rotary_backward(tokens, heads, width, tokens, tables.exact_cos.data(), tables.exact_sin.data(), y.data(),
                               back.data());
    expect_close(back, x, ElementType::float32);
}

TEST(Rotary, reference_gradient_agrees_with_finite_differences) {
    constexpr std::int64_t tokens = 2, heads = 2, width = 6, count = tokens * heads * width;
    // Tables whose halves differ: the backward is the transpose for any tables.
    const auto cos = random_values(tokens * width, 1), sin = random_values(tokens * width, 2);
    const auto x = random_values(count, 3), y_gradient = random_values(count, 4);
    std::vector<double> x_gradient(count);
    reference::rotary_backward(tokens, heads, width, tokens, cos.data(), sin.data(), y_gradient.data(),
                               x_gradient.data());
    const auto loss = [&](const std::vector<double>& at) {
        std::vector<double> y(count);
        reference::rotary_forward(tokens, heads, width, tokens, cos.data(), sin.data(), at.data(), y.data());
        return dot(y, y_gradient);
    };
    expect_gradient(loss, x, x_gradient);
}

}  // namespace
}  // namespace amalgam::kernels::testing
