// SPDX-License-Identifier: Apache-2.0
#include "kernels/kl_divergence/kl_divergence.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Results {
    std::vector<float> loss;
    Matrix gradient;
};

Results run(ElementType type, std::int64_t rows, std::int64_t vocabulary, float temperature, float weight,
            const Matrix& student, const Matrix& teacher, int threads) {
    Results out{std::vector<float>(rows), student};
    kl_divergence_with_gradient({.type = type,
                                 .rows = rows,
                                 .vocabulary = vocabulary,
                                 .temperature = temperature,
                                 .gradient_weight = weight,
                                 .student = out.gradient,
                                 .teacher = teacher,
                                 .loss = out.loss.data()},
                                threads);
    return out;
}

TEST(KlDivergence, agrees_with_the_reference_for_any_number_of_threads) {
    constexpr std::int64_t rows = 5;
    for (ElementType type : both_types) {
        for (std::int64_t vocabulary : {1, 7, 63, 576, 1025, 49152, 151936}) {
            for (float temperature : {1.0F, 2.0F}) {
                SCOPED_TRACE(::testing::Message() << vocabulary << " type " << static_cast<int>(type));
                const std::int64_t count = rows * vocabulary;
                const Matrix student(type, rows, vocabulary, random_values(count, 1, 3), 3);
                const Matrix teacher(type, rows, vocabulary, random_values(count, 2, 3), 2);
                std::vector<double> loss(rows), gradient(count);
                reference::kl_divergence(rows, vocabulary, temperature, student.values().data(),
                                         teacher.values().data(), loss.data(), gradient.data());
                for (double& value : gradient) value *= 0.25;
                const Results one = run(type, rows, vocabulary, temperature, 0.25F, student, teacher, 1);
                const Results two = run(type, rows, vocabulary, temperature, 0.25F, student, teacher, 2);
                EXPECT_EQ(one.loss, two.loss);
                EXPECT_TRUE(one.gradient == two.gradient);
                EXPECT_TRUE(one.gradient.gap_is_untouched());
                expect_close(one.loss, loss, ElementType::float32, 2e-6, 1);
                expect_close(one.gradient.values(), gradient, type, 4e-6, vocabulary == 1 ? 1 : 0);
                std::vector<float> forward_only(rows);
                kl_divergence({.type = type,
                               .rows = rows,
                               .vocabulary = vocabulary,
                               .temperature = temperature,
                               .student = student,
                               .teacher = teacher,
                               .loss = forward_only.data()},
                              2);
                EXPECT_EQ(forward_only, one.loss);
            }
        }
    }
}

// More rows than a device works on at a time.
TEST(KlDivergence, many_rows_agree_with_the_reference) {
    for (const auto& [rows, vocabulary] : {std::pair<std::int64_t, std::int64_t>{700, 1032}, {80, 60000}}) {
        const std::int64_t count = rows * vocabulary;
        const auto type = ElementType::bfloat16;
        const Matrix student(type, rows, vocabulary, random_values(count, 1, 3), 3);
        const Matrix teacher(type, rows, vocabulary, random_values(count, 2, 3), 2);
        std::vector<double> loss(rows), gradient(count);
        reference::kl_divergence(rows, vocabulary, 1, student.values().data(), teacher.values().data(), loss.data(),
                                 gradient.data());
        const Results out = run(type, rows, vocabulary, 1, 1, student, teacher, 2);
        EXPECT_TRUE(out.gradient.gap_is_untouched());
        expect_close(out.loss, loss, ElementType::float32, 2e-6, 1);
        expect_close(out.gradient.values(), gradient, type);
    }
}

TEST(KlDivergence, loses_nothing_over_large_vocabularies_and_near_agreement) {
    constexpr std::int64_t vocabulary = 262144;
    const auto teacher = random_values(vocabulary, 1, 2);
    std::vector<double> student = teacher;
    const auto noise = random_values(vocabulary, 2, 0.01);
    for (std::int64_t i = 0; i < vocabulary; ++i) student[i] += noise[i] + 40;  // a constant shift changes nothing
    const Matrix s(ElementType::float32, 1, vocabulary, student), t(ElementType::float32, 1, vocabulary, teacher);
    double loss = 0;
    reference::kl_divergence(1, vocabulary, 1, s.values().data(), t.values().data(), &loss, nullptr);
    EXPECT_GT(loss, 4e-5);
    const Results out = run(ElementType::float32, 1, vocabulary, 1, 1, s, t, 1);
    EXPECT_NEAR(out.loss[0], loss, 1e-6);
}

TEST(KlDivergence, equal_rows_give_zero) {
    for (ElementType type : both_types) {
        const Matrix logits(type, 1, 1000, random_values(1000, 1, 5));
        const Results out = run(type, 1, 1000, 1, 1, logits, logits, 1);
        EXPECT_EQ(out.loss[0], 0);
        EXPECT_EQ(out.gradient.values(), std::vector<double>(1000, 0.0));
    }
}

TEST(KlDivergence, not_a_number_reaches_loss_and_gradient_of_its_row_only) {
    constexpr std::int64_t vocabulary = 70;
    for (ElementType type : both_types) {
        for (double bad : {nan, infinity}) {
            for (bool in_student : {true, false}) {
                for (std::int64_t place : {0, 17, 69}) {
                    auto values = random_values(2 * vocabulary, 1);
                    const auto good = random_values(2 * vocabulary, 2);
                    values[place] = bad;
                    const Matrix student(type, 2, vocabulary, in_student ? values : good);
                    const Matrix teacher(type, 2, vocabulary, in_student ? good : values);
                    const Results out = run(type, 2, vocabulary, 1, 1, student, teacher, 1);
                    EXPECT_TRUE(std::isnan(out.loss[0]));
                    EXPECT_TRUE(std::isfinite(out.loss[1]));
                    const auto gradient = out.gradient.values();
                    for (std::int64_t i = 0; i < vocabulary; ++i) {
                        EXPECT_TRUE(std::isnan(gradient[i]));
                        EXPECT_TRUE(std::isfinite(gradient[vocabulary + i]));
                    }
                }
            }
        }
    }
}

TEST(KlDivergence, minus_infinity_is_probability_zero) {
    constexpr std::int64_t vocabulary = 37;
    auto student = random_values(vocabulary, 1), teacher = random_values(vocabulary, 2);
    teacher[3] = -infinity;               // 0 log 0 = 0
    student[5] = teacher[5] = -infinity;  // masked in both
    for (ElementType type : both_types) {
        const Matrix s(type, 1, vocabulary, student), t(type, 1, vocabulary, teacher);
        double loss = 0;
        reference::kl_divergence(1, vocabulary, 1, s.values().data(), t.values().data(), &loss, nullptr);
        const Results out = run(type, 1, vocabulary, 1, 1, s, t, 1);
        EXPECT_NEAR(out.loss[0], loss, 1e-5);
        EXPECT_EQ(out.gradient.values()[5], 0);
        EXPECT_GT(out.gradient.values()[3], 0);
    }
    // A long stretch, such as the padding of a vocabulary.
    constexpr std::int64_t padded = 65536, kept = 40000;
    auto long_student = random_values(padded, 3), long_teacher = random_values(padded, 4);
    std::fill(long_student.begin() + kept, long_student.end(), -infinity);
    std::fill(long_teacher.begin() + kept, long_teacher.end(), -infinity);
    for (ElementType type : both_types) {
        const Matrix s(type, 1, padded, long_student), t(type, 1, padded, long_teacher);
        double loss = 0;
        reference::kl_divergence(1, padded, 1, s.values().data(), t.values().data(), &loss, nullptr);
        const Results out = run(type, 1, padded, 1, 1, s, t, 1);
        EXPECT_NEAR(out.loss[0], loss, 1e-5);
        EXPECT_EQ(out.gradient.values()[kept], 0);
        EXPECT_EQ(out.gradient.values()[padded - 1], 0);
        EXPECT_NE(out.gradient.values()[kept - 1], 0);
    }
    student[7] = -infinity;  // where the teacher has mass
    const Matrix s(ElementType::float32, 1, vocabulary, student), t(ElementType::float32, 1, vocabulary, teacher);
    EXPECT_EQ(run(ElementType::float32, 1, vocabulary, 1, 1, s, t, 1).loss[0], infinity);
}

TEST(KlDivergence, reference_gradient_agrees_with_finite_differences) {
    const auto student = random_values(11, 1, 2), teacher = random_values(11, 2, 2);
    for (double temperature : {1.0, 1.7}) {
        std::vector<double> gradient(11);
        double loss = 0;
        reference::kl_divergence(1, 11, temperature, student.data(), teacher.data(), &loss, gradient.data());
        const auto function = [&](const std::vector<double>& at) {
            double value = 0;
            reference::kl_divergence(1, 11, temperature, at.data(), teacher.data(), &value, nullptr);
            return value;
        };
        expect_gradient(function, student, gradient);
    }
}

}  // namespace
}  // namespace amalgam::kernels::testing
