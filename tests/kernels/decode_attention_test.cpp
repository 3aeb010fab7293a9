// SPDX-License-Identifier: Apache-2.0
#include "kernels/decode_attention/decode_attention.h"

#include <numeric>

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

/// A batch of rows of unequal lengths in a cache with more slots than rows, filled with random numbers throughout:
/// whoever reads a token that is not a sequence's own gets it wrong.
struct Case {
    std::int64_t query_heads, key_value_heads, width, capacity, window;
    std::vector<std::int32_t> length;
};

// Heads of a group: 1, 3, 6, 8, 9; widths with and without whole vectors; lengths around the ends of pieces and tiles.
const Case cases[] = {{1, 1, 32, 8, 0, {0}},
                      {9, 3, 64, 1100, 0, {1099, 0, 63, -1, 1024, 1023, 64}},
                      {12, 2, 128, 300, 0, {15, 16, 17, 299, 31, 128}},
                      {8, 1, 96, 300, 0, {299, 100, 1}},
                      {9, 1, 64, 200, 0, {199, 30}},
                      {4, 2, 32, 400, 5, {399, 3, 4, 5, 200}},
                      {3, 3, 64, 1200, 1050, {1199, 1049, 1050, 10}},
                      {2, 1, 128, 4100, 0, {4099, 2111}},           // more parts than lanes of a warp
                      {16, 16, 128, 512, 0, {511, 300, 255, 64}}};  // blocks that fill a GPU: rows cut evenly
const Case odd_case = {4, 2, 14, 90, 0, {3, 89, 40}};               // no width of the device's

struct Operands {
    Operands(ElementType type, const Case& c)
        : type(type),
          shape{std::int64_t(c.length.size()), c.query_heads, c.key_value_heads, c.width, c.capacity},
          length(c.length),
          slot(c.length.size()),
          slots(shape.batch + 1),
          keys(type, cached(), c.width, random_values(cached() * c.width, 1)),
          values(type, cached(), c.width, random_values(cached() * c.width, 2)),
          q(type, shape.batch, c.query_heads * c.width, random_values(shape.batch * c.query_heads * c.width, 3), 5),
          k(type, shape.batch, c.key_value_heads * c.width, random_values(shape.batch * c.key_value_heads * c.width, 4),
            2),
          v(type, shape.batch, c.key_value_heads * c.width, random_values(shape.batch * c.key_value_heads * c.width, 5),
            2) {
        std::iota(slot.rbegin(), slot.rend(), 1);  // not in order, and not from the first
        for (std::size_t i = 0; i < length.size(); ++i)
            if (length[i] < 0) slot[i] = -1;
        for (std::int64_t p = 0; p < c.capacity; ++p)
            for (std::int64_t j = 0; j < c.width; ++j) {
                const double exponent = double(2 * (j % (c.width / 2))) / double(c.width);
                cos.push_back(float(std::cos(double(p) * std::pow(1e4, -exponent))));
                sin.push_back(float(std::sin(double(p) * std::pow(1e4, -exponent))));
            }
        for (const double x : random_values(2 * c.width, 6, 0.2)) norms.push_back(float(1 + x));
    }

    std::int64_t cached() const { return slots * shape.key_value_heads * shape.capacity; }

    ElementType type;
    CacheShape shape;
    std::vector<std::int32_t> length, slot;
    std::int64_t slots;
    Matrix keys, values, q, k, v;
    std::vector<float> cos, sin, norms;
};

void expect_attention(ElementType type, const Case& c) {
    Operands x(type, c);
    const std::int64_t count = x.shape.batch * c.query_heads * c.width;
    const double scale = 1 / std::sqrt(double(c.width));
    std::vector<double> expected(count);
    reference::decode_attention(x.shape, x.slot.data(), x.length.data(), c.window, scale, x.q.values().data(),
                                x.keys.values().data(), x.values.values().data(), expected.data());
    const auto run = [&](int threads) {
        Matrix o(type, x.shape.batch, c.query_heads * c.width, std::vector<double>(count, 0.0), 3);
        DecodeAttention call{.type = type,
                             .shape = x.shape,
                             .slot = x.slot.data(),
                             .length = x.length.data(),
                             .window = c.window,
                             .q = x.q,
                             .keys = x.keys.data(),
                             .values = x.values.data(),
                             .o = o};
        decode_attention(call, threads);
        EXPECT_TRUE(o.gap_is_untouched());
        return o;
    };
    const Matrix one = run(1);
    EXPECT_TRUE(one == run(3));
    // Weights are rounded to bfloat16 before the sum over values on the device.
    expect_close(one.values(), expected, type, type == ElementType::bfloat16 ? 1e-2 : 4e-6);
}

TEST(DecodeAttention, agrees_with_the_reference_for_any_number_of_threads) {
    for (ElementType type : both_types)
        for (const Case& c : cases) {
            SCOPED_TRACE(::testing::Message() << "heads " << c.query_heads << " / " << c.key_value_heads << " width "
                                              << c.width << " type " << static_cast<int>(type));
            expect_attention(type, c);
        }
}

TEST(DecodeAttention, refuses_no_width_of_heads) {
    for (ElementType type : both_types) expect_attention(type, odd_case);
}

/// The check above would see a token too many, one too few, and a window that is off by one.
TEST(DecodeAttention, another_length_or_window_is_another_result) {
    const Case& c = cases[5];
    const Operands x(ElementType::float32, c);
    const auto with = [&](std::int32_t change, std::int64_t window) {
        std::vector<std::int32_t> length = x.length;
        for (std::int32_t& n : length) n += change;
        std::vector<double> o(x.shape.batch * c.query_heads * c.width);
        reference::decode_attention(x.shape, x.slot.data(), length.data(), window, 0.2, x.q.values().data(),
                                    x.keys.values().data(), x.values.values().data(), o.data());
        return o;
    };
    const auto right = with(0, c.window);
    const auto distance = [&](const std::vector<double>& other) {
        double largest = 0;
        for (std::size_t i = 0; i < right.size(); ++i) largest = std::max(largest, std::abs(other[i] - right[i]));
        return largest;
    };
    EXPECT_GT(distance(with(-1, c.window)), 0.1);
    EXPECT_GT(distance(with(0, c.window + 1)), 0.1);
    EXPECT_GT(distance(with(0, c.window - 1)), 0.1);
    EXPECT_EQ(distance(with(0, c.window)), 0.0);
}

void expect_append(ElementType type, const Case& c, bool with_norms) {
    Operands x(type, c);
    const float epsilon = 1e-5F;
    const auto exact = [](const std::vector<float>& values) {
        return std::vector<double>(values.begin(), values.end());
    };
    const auto norms = exact(x.norms), cos = exact(x.cos), sin = exact(x.sin);
    std::vector<double> rotated(x.shape.batch * c.query_heads * c.width), keys = x.keys.values(),
                                                                          values = x.values.values();
    reference::append_to_cache(x.shape, x.slot.data(), x.length.data(), x.q.values().data(), x.k.values().data(),
                               x.v.values().data(), with_norms ? norms.data() : nullptr,
                               with_norms ? norms.data() + c.width : nullptr, epsilon, cos.data(), sin.data(),
                               rotated.data(), keys.data(), values.data());
    Matrix to(type, x.shape.batch, c.query_heads * c.width, std::vector<double>(rotated.size(), 0.0), 3);
    CacheAppend call{.type = type,
                     .shape = x.shape,
                     .slot = x.slot.data(),
                     .length = x.length.data(),
                     .q = x.q,
                     .k = x.k,
                     .v = x.v,
                     .q_norm = with_norms ? x.norms.data() : nullptr,
                     .k_norm = with_norms ? x.norms.data() + c.width : nullptr,
                     .epsilon = epsilon,
                     .cos = x.cos.data(),
                     .sin = x.sin.data(),
                     .rotated = to,
                     .keys = x.keys.data(),
                     .values = x.values.data()};
    append_to_cache(call, 2);
    EXPECT_TRUE(to.gap_is_untouched());
    // Two roundings, and a rotation adds two rounded numbers.
    const double error = type == ElementType::bfloat16 ? 1e-2 : 4e-6;
    expect_close(to.values(), rotated, type, error);
    expect_close(x.keys.values(), keys, type, error);
    EXPECT_EQ(x.values.values(), values);
}

TEST(CacheAppend, agrees_with_the_reference) {
    for (ElementType type : both_types)
        for (Case c : cases)
            for (const bool with_norms : {false, true}) {
                c.capacity = std::min<std::int64_t>(c.capacity, 70);
                for (std::int32_t& length : c.length) length %= 70;
                SCOPED_TRACE(::testing::Message() << "heads " << c.query_heads << " / " << c.key_value_heads
                                                  << " width " << c.width << " type " << static_cast<int>(type));
                expect_append(type, c, with_norms);
            }
}

TEST(CacheAppend, refuses_no_width_of_heads) {
    for (ElementType type : both_types) expect_append(type, odd_case, true);
}

TEST(DecodeAttention, refuses_lengths_that_the_cache_has_no_place_for) {
    Case c = cases[0];
    c.length = {8};
    Operands x(ElementType::float32, c);
    EXPECT_THROW(decode_attention({.type = x.type,
                                   .shape = x.shape,
                                   .slot = x.slot.data(),
                                   .length = x.length.data(),
                                   .q = x.q,
                                   .keys = x.keys.data(),
                                   .values = x.values.data(),
                                   .o = x.q},
                                  1),
                 std::invalid_argument);
}

}  // namespace
}  // namespace amalgam::kernels::testing
