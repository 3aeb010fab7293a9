// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/kl_divergence/kl_divergence.h"

namespace amalgam::kernels::reference {
namespace {

double log_sum_exp(const double* logits, std::int64_t count, double temperature) {
    const double maximum = *std::max_element(logits, logits + count);
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += std::exp((logits[i] - maximum) / temperature);
    return maximum / temperature + std::log(sum);
}

}  // namespace

void kl_divergence(std::int64_t rows, std::int64_t vocabulary, double temperature, const double* student,
                   const double* teacher, double* loss, double* gradient) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * vocabulary;
        const double student_normaliser = log_sum_exp(student + first, vocabulary, temperature);
        const double teacher_normaliser = log_sum_exp(teacher + first, vocabulary, temperature);
        loss[row] = 0;
        for (std::int64_t i = first; i < first + vocabulary; ++i) {
            const double log_p_student = student[i] / temperature - student_normaliser;
            const double log_p_teacher = teacher[i] / temperature - teacher_normaliser;
            const double p_teacher = std::exp(log_p_teacher);
            if (p_teacher != 0) loss[row] += temperature * temperature * p_teacher * (log_p_teacher - log_p_student);
            if (gradient != nullptr) gradient[i] = temperature * (std::exp(log_p_student) - p_teacher);
        }
    }
}

}  // namespace amalgam::kernels::reference
