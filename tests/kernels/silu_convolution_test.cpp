// SPDX-License-Identifier: Apache-2.0
#include "kernels/silu_convolution/silu_convolution.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Case {
    std::int64_t batch, time, channels;
    int taps;
    bool silu, state;
};

const Case cases[] = {{1, 1, 1, 4, true, false},   {2, 2, 7, 4, true, true},     {1, 131, 63, 4, true, false},
                      {3, 65, 576, 4, true, true}, {2, 70, 40, 3, false, false}, {1, 64, 33, 2, true, true},
                      {2, 5, 17, 4, false, true},  {1, 150, 64, 3, true, true}};

struct Operands {
    Matrix x, weight, state, y_gradient;
};

struct Results {
    Matrix y, final_state, x_gradient;
    std::vector<float> weight_gradient;
};

Operands operands_of(const Case& c, ElementType type) {
    const std::int64_t tokens = c.batch * c.time;
    return {Matrix(type, tokens, c.channels, random_values(tokens * c.channels, 1), 13, Matrix::Gap::odd),
            Matrix(ElementType::float32, c.channels, c.taps, random_values(c.channels * c.taps, 2)),
            Matrix(type, c.batch * (c.taps - 1), c.channels, random_values(c.batch * (c.taps - 1) * c.channels, 3)),
            Matrix(type, tokens, c.channels, random_values(tokens * c.channels, 4), 2)};
}

Results run(const Case& c, ElementType type, const Operands& in, int threads) {
    const std::int64_t tokens = c.batch * c.time;
    Results out{Matrix(type, tokens, c.channels, 3), Matrix(type, c.batch * (c.taps - 1), c.channels),
                Matrix(type, tokens, c.channels, 5), std::vector<float>(c.channels * c.taps)};
    const void* state = c.state ? in.state.data() : nullptr;
    silu_convolution_forward({.type = type,
                              .batch = c.batch,
                              .time = c.time,
                              .channels = c.channels,
                              .taps = c.taps,
                              .silu = c.silu,
                              .x = in.x,
                              .weight = in.weight.floats(),
                              .initial_state = state,
                              .y = out.y,
                              .final_state = out.final_state.data()},
                             threads);
    silu_convolution_backward({.type = type,
                               .batch = c.batch,
                               .time = c.time,
                               .channels = c.channels,
                               .taps = c.taps,
                               .silu = c.silu,
                               .y_gradient = in.y_gradient,
                               .x = in.x,
                               .weight = in.weight.floats(),
                               .initial_state = state,
                               .x_gradient = out.x_gradient,
                               .weight_gradient = out.weight_gradient.data()},
                              threads);
    return out;
}

TEST(SiluConvolution, agrees_with_the_reference_for_any_number_of_threads) {
    for (ElementType type : both_types) {
        for (const Case& c : cases) {
            SCOPED_TRACE(::testing::Message() << "channels " << c.channels << " type " << static_cast<int>(type));
            const Operands in = operands_of(c, type);
            const Results one = run(c, type, in, 1), two = run(c, type, in, 2);
            EXPECT_TRUE(one.y == two.y && one.final_state == two.final_state && one.x_gradient == two.x_gradient);
            EXPECT_EQ(one.weight_gradient, two.weight_gradient);
            EXPECT_TRUE(one.y.gap_is_untouched() && one.x_gradient.gap_is_untouched());

            const std::int64_t count = c.batch * c.time * c.channels;
            const auto x = in.x.values(), weight = in.weight.values(), state = in.state.values();
            const double* state_data = c.state ? state.data() : nullptr;
            std::vector<double> y(count), x_gradient(count), weight_gradient(c.channels * c.taps);
            reference::silu_convolution_forward(c.batch, c.time, c.channels, c.taps, c.silu, x.data(), weight.data(),
                                                state_data, y.data());
            reference::silu_convolution_backward(c.batch, c.time, c.channels, c.taps, c.silu,
                                                 in.y_gradient.values().data(), x.data(), weight.data(), state_data,
                                                 x_gradient.data(), weight_gradient.data());
            expect_close(one.y.values(), y, type, 4e-6, 1);
            expect_close(one.x_gradient.values(), x_gradient, type, 4e-6, 1);
            expect_close(one.weight_gradient, weight_gradient, ElementType::float32, 4e-6, 1);

            // The final state is the last taps - 1 rows of state and input.
            const auto final_state = one.final_state.values();
            const std::int64_t past = c.taps - 1;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(final_state.size()); ++i) {
                const std::int64_t b = i / (past * c.channels), k = i / c.channels % past, channel = i % c.channels;
                const std::int64_t t = c.time - past + k;
                const double expected = t >= 0    ? x[(b * c.time + t) * c.channels + channel]
                                        : c.state ? state[(b * past + t + past) * c.channels + channel]
                                                  : 0;
                ASSERT_EQ(final_state[i], expected);
            }
        }
    }
}

TEST(SiluConvolution, steps_with_the_state_in_place_repeat_the_whole_sequence) {
    const Case c{2, 6, 24, 4, true, false};
    for (ElementType type : both_types) {
        const Operands in = operands_of(c, type);
        const Results whole = run(c, type, in, 2);
        const auto x = in.x.values(), y = whole.y.values();
        Matrix state(type, c.batch * 3, c.channels, std::vector<double>(c.batch * 3 * c.channels, 0.0));
        for (std::int64_t t = 0; t < c.time; ++t) {
            std::vector<double> token, expected;
            for (std::int64_t b = 0; b < c.batch; ++b) {
                for (std::int64_t i = 0; i < c.channels; ++i) {
                    token.push_back(x[(b * c.time + t) * c.channels + i]);
                    expected.push_back(y[(b * c.time + t) * c.channels + i]);
                }
            }
            const Matrix now(type, c.batch, c.channels, token);
            Matrix result(type, c.batch, c.channels);
            silu_convolution_forward({.type = type,
                                      .batch = c.batch,
                                      .time = 1,
                                      .channels = c.channels,
                                      .x = now,
                                      .weight = in.weight.floats(),
                                      .initial_state = state.data(),
                                      .y = result,
                                      .final_state = state.data()},
                                     1);
            EXPECT_EQ(result.values(), expected) << "step " << t;
        }
        EXPECT_TRUE(state == whole.final_state);
    }
}

TEST(SiluConvolution, slots_name_the_states_that_sequences_continue) {
    constexpr std::int64_t rows = 3, channels = 24, slots = 5;
    for (ElementType type : both_types) {
        const Matrix x(type, rows, channels, random_values(rows * channels, 1)),
            weight(ElementType::float32, channels, 4, random_values(channels * 4, 2));
        const auto states = random_values(slots * 3 * channels, 3);
        const std::vector<std::int32_t> slot = {4, -1, 1};
        // The same with the states picked out; a row without a slot begins with zeros.
        std::vector<double> picked;
        for (const std::int32_t s : slot)
            for (std::int64_t i = 0; i < 3 * channels; ++i)
                picked.push_back(s < 0 ? 0.0 : states[std::size_t(s * 3 * channels + i)]);
        Matrix all(type, slots * 3, channels, states), own(type, rows * 3, channels, picked);
        const Matrix before = all;
        Matrix found(type, rows, channels), expected(type, rows, channels);
        SiluConvolutionForward call{.type = type,
                                    .batch = rows,
                                    .time = 1,
                                    .channels = channels,
                                    .x = x,
                                    .weight = weight.floats(),
                                    .initial_state = own.data(),
                                    .y = expected,
                                    .final_state = own.data()};
        silu_convolution_forward(call, 2);
        call.initial_state = all.data();
        call.final_state = all.data();
        call.y = found;
        call.slot = slot.data();
        silu_convolution_forward(call, 2);
        EXPECT_EQ(found.values(), expected.values());
        const auto now = all.values(), then = before.values(), alone = own.values();
        for (std::int64_t s = 0; s < slots; ++s)
            for (std::int64_t i = 0; i < 3 * channels; ++i) {
                const auto at = std::size_t(s * 3 * channels + i);
                const std::int64_t row = s == 4 ? 0 : s == 1 ? 2 : -1;
                ASSERT_EQ(now[at], row < 0 ? then[at] : alone[std::size_t(row * 3 * channels + i)]) << s;
            }
        EXPECT_FALSE(all == before);
    }
}

TEST(SiluConvolution, na_n_reaches_the_tokens_that_see_it) {
    const Case c{1, 9, 20, 4, true, false};
    auto values = random_values(9 * 20, 1);
    values[3 * 20 + 4] = nan;
    const Matrix x(ElementType::float32, 9, 20, values), weight(ElementType::float32, 20, 4, random_values(80, 2));
    Matrix y(ElementType::float32, 9, 20);
    silu_convolution_forward({.type = ElementType::float32,
                              .time = c.time,
                              .channels = c.channels,
                              .x = x,
                              .weight = weight.floats(),
                              .y = y},
                             1);
    const auto result = y.values();
    for (int i = 0; i < 9 * 20; ++i) {
        const int t = i / 20;
        EXPECT_EQ(std::isnan(result[i]), i % 20 == 4 && t >= 3 && t <= 6) << i;
    }
}

TEST(SiluConvolution, refuses_a_number_of_taps_without_a_kernel) {
    EXPECT_THROW(silu_convolution_forward({.type = ElementType::float32, .taps = 5}, 1), std::invalid_argument);
}

TEST(SiluConvolution, reference_gradient_agrees_with_finite_differences) {
    constexpr std::int64_t batch = 2, time = 5, channels = 2, count = batch * time * channels;
    constexpr int taps = 4;
    const auto x = random_values(count, 1), weight = random_values(channels * taps, 2);
    const auto y_gradient = random_values(count, 3), state = random_values(batch * 3 * channels, 4);
    std::vector<double> x_gradient(count), weight_gradient(channels * taps);
    reference::silu_convolution_backward(batch, time, channels, taps, true, y_gradient.data(), x.data(), weight.data(),
                                         state.data(), x_gradient.data(), weight_gradient.data());
    const auto loss = [&](const auto& x, const auto& weight) {
        std::vector<double> y(count);
        reference::silu_convolution_forward(batch, time, channels, taps, true, x.data(), weight.data(), state.data(),
                                            y.data());
        return dot(y, y_gradient);
    };
    expect_gradient([&](const auto& at) { return loss(at, weight); }, x, x_gradient);
    expect_gradient([&](const auto& at) { return loss(x, at); }, weight, weight_gradient);
}

}  // namespace
}  // namespace amalgam::kernels::testing
