// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy/cross_entropy.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Results {
    std::vector<float> loss;
    std::vector<std::uint8_t> correct;
    Matrix gradient;
};

Results run(ElementType type, std::int64_t vocabulary, float weight, const Matrix& logits,
            const std::vector<std::int64_t>& targets, int threads) {
    const auto rows = static_cast<std::int64_t>(targets.size());
    Results out{std::vector<float>(rows), std::vector<std::uint8_t>(rows), logits};
    cross_entropy_with_gradient({.type = type,
                                 .rows = rows,
                                 .vocabulary = vocabulary,
                                 .gradient_weight = weight,
                                 .logits = out.gradient,
                                 .targets = targets.data(),
                                 .loss = out.loss.data(),
                                 .correct = out.correct.data()},
                                threads);
    return out;
}

TEST(CrossEntropy, agrees_with_the_reference_for_any_number_of_threads) {
    for (ElementType type : both_types) {
        for (std::int64_t vocabulary : {1, 7, 63, 576, 49152, 128256}) {
            SCOPED_TRACE(::testing::Message() << vocabulary << " type " << static_cast<int>(type));
            const std::vector<std::int64_t> targets = {0, vocabulary - 1, -100, vocabulary / 2, vocabulary / 3};
            const std::int64_t rows = 5, count = rows * vocabulary;
            const Matrix logits(type, rows, vocabulary, random_values(count, 1, 3), 3);
            std::vector<double> loss(rows), gradient(count);
            reference::cross_entropy(rows, vocabulary, logits.values().data(), targets.data(), loss.data(),
                                     gradient.data());
            for (double& value : gradient) value *= 0.5;
            const Results one = run(type, vocabulary, 0.5F, logits, targets, 1);
            const Results two = run(type, vocabulary, 0.5F, logits, targets, 2);
            EXPECT_EQ(one.loss, two.loss);
            EXPECT_EQ(one.correct, two.correct);
            EXPECT_TRUE(one.gradient == two.gradient);
            EXPECT_TRUE(one.gradient.gap_is_untouched());
            expect_close(one.loss, loss, ElementType::float32, 1e-6, 1);
            expect_close(one.gradient.values(), gradient, type, 4e-6, vocabulary == 1 ? 1 : 0);
            std::vector<float> forward_only(rows);
            cross_entropy({.type = type,
                           .rows = rows,
                           .vocabulary = vocabulary,
                           .logits = logits,
                           .targets = targets.data(),
                           .loss = forward_only.data()},
                          2);
            EXPECT_EQ(forward_only, one.loss);
        }
    }
}

// More rows than a device works on at a time.
TEST(CrossEntropy, many_rows_agree_with_the_reference) {
    for (const auto& [rows, vocabulary] : {std::pair<std::int64_t, std::int64_t>{700, 1032}, {80, 60000}}) {
        const std::int64_t count = rows * vocabulary;
        const auto type = ElementType::bfloat16;
        const Matrix logits(type, rows, vocabulary, random_values(count, 1, 3), 3);
        std::vector<std::int64_t> targets(rows);
        for (std::int64_t row = 0; row < rows; ++row) targets[row] = row % 7 == 3 ? -1 : row * 977 % vocabulary;
        std::vector<double> loss(rows), gradient(count);
        reference::cross_entropy(rows, vocabulary, logits.values().data(), targets.data(), loss.data(),
                                 gradient.data());
        const Results out = run(type, vocabulary, 1, logits, targets, 2);
        EXPECT_TRUE(out.gradient.gap_is_untouched());
        expect_close(out.loss, loss, ElementType::float32, 1e-6, 1);
        expect_close(out.gradient.values(), gradient, type);
    }
}

TEST(CrossEntropy, correct_means_first_maximum) {
    const std::vector<double> row = {1, 3, 3, -2};
    std::vector<double> rows;
    for (int i = 0; i < 4; ++i) rows.insert(rows.end(), row.begin(), row.end());
    const Matrix logits(ElementType::bfloat16, 4, 4, rows);
    const Results out = run(ElementType::bfloat16, 4, 1, logits, {0, 1, 2, -1}, 1);
    EXPECT_EQ(out.correct, (std::vector<std::uint8_t>{0, 1, 0, 0}));
}

TEST(CrossEntropy, not_a_number_reaches_loss_and_gradient_of_its_row_only) {
    constexpr std::int64_t vocabulary = 70;
    for (ElementType type : both_types) {
        for (double bad : {nan, infinity}) {
            auto values = random_values(2 * vocabulary, 1);
            values[66] = bad;
            const Matrix logits(type, 2, vocabulary, values);
            const Results out = run(type, vocabulary, 1, logits, {3, 3}, 1);
            EXPECT_TRUE(std::isnan(out.loss[0]));
            EXPECT_TRUE(std::isfinite(out.loss[1]));
            EXPECT_EQ(out.correct[0], 0);
            const auto gradient = out.gradient.values();
            for (std::int64_t i = 0; i < vocabulary; ++i) {
                EXPECT_TRUE(std::isnan(gradient[i]));
                EXPECT_TRUE(std::isfinite(gradient[vocabulary + i]));
            }
        }
    }
}

TEST(CrossEntropy, refuses_a_target_outside_the_vocabulary) {
    const Matrix logits(ElementType::float32, 1, 4, {1, 2, 3, 4});
    EXPECT_THROW(run(ElementType::float32, 4, 1, logits, {4}, 1), std::invalid_argument);
}

TEST(CrossEntropy, reference_gradient_agrees_with_finite_differences) {
    const auto logits = random_values(11, 1, 2);
    const std::int64_t target = 4;
    std::vector<double> gradient(11);
    double loss = 0;
    reference::cross_entropy(1, 11, logits.data(), &target, &loss, gradient.data());
    const auto function = [&](const std::vector<double>& at) {
        double value = 0;
        reference::cross_entropy(1, 11, at.data(), &target, &value, nullptr);
        return value;
    };
    expect_gradient(function, logits, gradient);
}

}  // namespace
}  // namespace amalgam::kernels::testing
