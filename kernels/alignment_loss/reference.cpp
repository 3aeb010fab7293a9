// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/alignment_loss/alignment_loss.h"

namespace amalgam::kernels::reference {

void alignment_loss(std::int64_t rows, std::int64_t width, Distance distance, const double* student,
                    const double* teacher, double* gradient, double* loss) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * width;
        double difference_squares = 0, teacher_squares = 0;
        for (std::int64_t i = first; i < first + width; ++i) {
            difference_squares += (student[i] - teacher[i]) * (student[i] - teacher[i]);
            teacher_squares += teacher[i] * teacher[i];
        }
        const double norm = std::sqrt(difference_squares), root = std::sqrt(static_cast<double>(width));
        const double divisor = std::max(teacher_squares, 1e-12);
        loss[row] = distance == Distance::norm ? norm / root : difference_squares / divisor;
        const double factor = distance == Distance::norm ? 1 / (root * std::max(norm, 1e-12)) : 2 / divisor;
        for (std::int64_t i = first; i < first + width; ++i) gradient[i] = factor * (student[i] - teacher[i]);
    }
}

}  // namespace amalgam::kernels::reference
