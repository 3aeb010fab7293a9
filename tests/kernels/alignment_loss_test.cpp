// SPDX-License-Identifier: Apache-2.0
#include "kernels/alignment_loss/alignment_loss.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

constexpr Distance both_distances[] = {Distance::norm, Distance::relative};

struct Results {
    Matrix gradient;
    std::vector<float> loss;
};

Results run(ElementType type, std::int64_t rows, std::int64_t width, Distance distance, const Matrix& student,
            const Matrix& teacher, int threads) {
    Results out{Matrix(type, rows, width, 3), std::vector<float>(rows)};
    alignment_loss({.type = type,
                    .rows = rows,
                    .width = width,
                    .distance = distance,
                    .gradient_weight = 0.25F,
                    .student = student,
                    .teacher = teacher,
                    .gradient = out.gradient,
                    .loss = out.loss.data()},
                   threads);
    return out;
}

TEST(AlignmentLoss, agrees_with_the_reference_for_any_number_of_threads) {
    constexpr std::int64_t rows = 37;
    for (ElementType type : both_types) {
        for (Distance distance : both_distances) {
            for (std::int64_t width : {1, 7, 64, 128, 576, 1536, 3072, 4096, 8192}) {
                SCOPED_TRACE(::testing::Message() << width << " type " << static_cast<int>(type));
                const std::int64_t count = rows * width;
                const Matrix student(type, rows, width, random_values(count, 1), 1);
                const Matrix teacher(type, rows, width, random_values(count, 2), 2);
                const Results one = run(type, rows, width, distance, student, teacher, 1);
                const Results two = run(type, rows, width, distance, student, teacher, 2);
                EXPECT_TRUE(one.gradient == two.gradient);
                EXPECT_EQ(one.loss, two.loss);
                EXPECT_TRUE(one.gradient.gap_is_untouched());
                std::vector<double> gradient(count), loss(rows);
                reference::alignment_loss(rows, width, distance, student.values().data(), teacher.values().data(),
                                          gradient.data(), loss.data());
                for (double& value : gradient) value *= 0.25;
                expect_close(one.loss, loss, ElementType::float32);
                expect_close(one.gradient.values(), gradient, type);
            }
        }
    }
}

TEST(AlignmentLoss, equal_rows_have_no_loss_and_no_gradient) {
    for (ElementType type : both_types) {
        for (Distance distance : both_distances) {
            for (double scale : {0.0, 1.0}) {
                const Matrix same(type, 2, 40, random_values(80, 1, scale + 1e-30));
                const Results out = run(type, 2, 40, distance, same, same, 1);
                EXPECT_EQ(out.loss, std::vector<float>(2, 0.0F));
                EXPECT_EQ(out.gradient.values(), std::vector<double>(80, 0.0));
            }
        }
    }
}

TEST(AlignmentLoss, not_a_number_stays_in_its_row) {
    auto values = random_values(80, 1);
    values[5] = nan;
    const Matrix student(ElementType::float32, 2, 40, values),
        teacher(ElementType::float32, 2, 40, random_values(80, 2));
    for (Distance distance : both_distances) {
        const Results out = run(ElementType::float32, 2, 40, distance, student, teacher, 1);
        EXPECT_TRUE(std::isnan(out.loss[0]) && std::isfinite(out.loss[1]));
        EXPECT_TRUE(std::isnan(out.gradient.values()[5]) && std::isfinite(out.gradient.values()[45]));
    }
}

TEST(AlignmentLoss, reference_gradient_agrees_with_finite_differences) {
    const auto student = random_values(10, 1), teacher = random_values(10, 2);
    for (Distance distance : both_distances) {
        std::vector<double> gradient(10), loss(2);
        const auto function = [&](const std::vector<double>& at) {
            reference::alignment_loss(2, 5, distance, at.data(), teacher.data(), gradient.data(), loss.data());
            return loss[0] + loss[1];
        };
        function(student);
        const std::vector<double> found = gradient;
        expect_gradient(function, student, found);
    }
}

}  // namespace
}  // namespace amalgam::kernels::testing
