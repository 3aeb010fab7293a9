// SPDX-License-Identifier: Apache-2.0
#include "system/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "normal_stream.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Words = std::array<uint32_t, 4>;

/// Known answers published with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, known_answers) {
    const uint32_t ones = 0xffffffff;
    EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, is_a_pure_function_of_seed_name_and_number) {
    const RandomStream one(7, "weight"), same(7, "weight"), other_name(7, "bias"), other_seed(8, "weight");
    for (uint64_t n : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, UINT64_MAX}) {
        EXPECT_EQ(one.bits(n), same.bits(n));
        EXPECT_NE(one.bits(n), other_name.bits(n));
        EXPECT_NE(one.bits(n), other_seed.bits(n));
        EXPECT_NE(one.bits(n), one.bits(n ^ 1));
    }
}

/// Files and tests rely on these: changing the generator changes every result.
TEST(RandomStream, first_numbers_are_fixed) {
    const RandomStream stream(0, "");
    // FNV-1a of an empty name is 0xcbf29ce484222325: the third and fourth word of the counter.
    const Words words = philox({0, 0, 0x84222325, 0xcbf29ce4}, {0, 0});
    EXPECT_EQ(stream.bits(0), uint64_t{words[1]} << 32 | words[0]);
}

TEST(RandomStream, uniform_has_the_moments_of_its_distribution) {
    const RandomStream stream(1, "uniform");
    const int count = 100000;
    double sum = 0, squares = 0;
    for (int n = 0; n < count; ++n) {
        const double u = stream.uniform(n);
        ASSERT_GT(u, 0);
        ASSERT_LT(u, 1);
        sum += u;
        squares += u * u;
    }
    // Five standard errors.
    EXPECT_NEAR(sum / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
    EXPECT_NEAR(squares / count, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / count));
}

TEST(NormalStream, has_the_moments_of_its_distribution) {
    const test::NormalStream stream(1, "normal");
    const int count = 100000;
    double sum = 0, squares = 0, fourth = 0;
    int beyond_two = 0;
    for (int n = 0; n < count; ++n) {
        const double x = stream(uint64_t(n));
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        beyond_two += std::abs(x) > 2;
    }
    EXPECT_NEAR(sum / count, 0, 5 / std::sqrt(count));
    EXPECT_NEAR(squares / count, 1, 5 * std::sqrt(2.0 / count));
    EXPECT_NEAR(fourth / count, 3, 5 * std::sqrt(96.0 / count));
    EXPECT_NEAR(double(beyond_two) / count, 0.0455, 5 * std::sqrt(0.0455 / count));
}

TEST(Permutation, is_a_bijection_for_every_small_size) {
    for (uint64_t size = 1; size <= 300; ++size)
        for (uint64_t seed : {0, 1, 12345}) {
            const Permutation permutation(size, seed);
            std::vector<bool> hit(size, false);
            for (uint64_t i = 0; i < size; ++i) {
                const uint64_t image = permutation.image(i);
                ASSERT_LT(image, size);
                ASSERT_FALSE(hit[image]) << "size " << size << ", " << image << " is hit twice";
                hit[image] = true;
            }
        }
}

TEST(Permutation, large_sizes_stay_inside_without_collisions) {
    for (uint64_t size : {uint64_t{1'000'000'000'000}, (uint64_t{1} << 40) + 1, UINT64_MAX}) {
        const Permutation permutation(size, 3);
        std::set<uint64_t> images;
        for (uint64_t k = 0; k < 10000; ++k) {
            const uint64_t index = k < 5000 ? k : size - 1 - k;
            const uint64_t image = permutation.image(index);
            ASSERT_LT(image, size);
            ASSERT_TRUE(images.insert(image).second);
        }
    }
}

TEST(Permutation, seeds_give_different_orders) {
    const Permutation one(1000, 1), two(1000, 2);
    int equal = 0, fixed = 0;
    for (uint64_t i = 0; i < 1000; ++i) {
        equal += one.image(i) == two.image(i);
        fixed += one.image(i) == i;
    }
    EXPECT_LT(equal, 10);  // about 1 expected
    EXPECT_LT(fixed, 10);
}

/// Over many seeds each element must go everywhere equally often, also in tiny permutations.
TEST(Permutation, small_permutations_are_even) {
    const int seeds = 6000, size = 6;
    int counts[size] = {};
    for (int seed = 0; seed < seeds; ++seed) ++counts[Permutation(size, seed).image(0)];
    for (int count : counts) EXPECT_NEAR(count, seeds / size, 5 * std::sqrt(seeds / size));
}

TEST(Permutation, index_outside_is_refused) {
    EXPECT_THROW(Permutation(10, 0).image(10), Error);
    EXPECT_THROW(Permutation(0, 0).image(0), Error);
}

}  // namespace
}  // namespace amalgam
