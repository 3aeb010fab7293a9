// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <omp.h>

#include "kernels/elementwise/blocks.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/kl_divergence/kl_divergence.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

struct Sums {
    double student = 0;  // of exp((logit - maximum) / temperature)
    double teacher = 0;
    double product = 0;  // of the teacher's exponential times the difference of the centred logits / temperature
};

// One pass for the maxima, one for the sums. `exponentials` [2, columns], if given, keeps student's and teacher's.
template <class T>
Sums sums_of_row(const T* student, const T* teacher, std::int64_t columns, float temperature, float* exponentials) {
    const Vector student_maximum = broadcast(row_maximum(student, columns));
    const Vector teacher_maximum = broadcast(row_maximum(teacher, columns));
    const Vector scale = broadcast(1.0F / temperature);
    Sums sums;
    for_each_block(columns, [&](std::int64_t begin, std::int64_t count) {
        Vector student_sum = zero(), teacher_sum = zero(), product_sum = zero();
        for_each_vector(count, [&](std::int64_t j, auto part) {
            const std::int64_t i = begin + j;
            const Vector s = fill_absent((load(student + i, part) - student_maximum) * scale, part, negative_infinity);
            const Vector t = fill_absent((load(teacher + i, part) - teacher_maximum) * scale, part, negative_infinity);
            const Vector student_exponential = accurate_exponential(s);
            const Vector teacher_exponential = accurate_exponential(t);
            student_sum = student_sum + student_exponential;
            teacher_sum = teacher_sum + teacher_exponential;
            // p log p is 0 for p = 0, whatever the logits: both may be -infinity.
            product_sum = product_sum + (teacher_exponential == zero() ? zero() : teacher_exponential * (t - s));
            if (exponentials != nullptr) {
                store(exponentials + i, student_exponential, part);
                store(exponentials + columns + i, teacher_exponential, part);
            }
        });
        sums.student += sum(student_sum);
        sums.teacher += sum(teacher_sum);
        sums.product += sum(product_sum);
    });
    return sums;
}

float loss_of(const Sums& sums, double temperature) {
    const double loss = sums.product / sums.teacher + log(sums.student) - log(sums.teacher);
    return static_cast<float>(temperature * temperature * loss);
}

}  // namespace

void kl_divergence(const KlDivergence& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t row = 0; row < a.rows; ++row) {
            a.loss[row] = loss_of(
                sums_of_row(row_of<T>(a.student, row), row_of<T>(a.teacher, row), a.vocabulary, a.temperature, nullptr),
                a.temperature);
        }
    });
}

void kl_divergence_with_gradient(const KlDivergenceGradient& a, int threads) {
    // The exponentials wait for their sums in the cache: cheaper than a second evaluation.
    const std::int64_t scratch_of_thread = 2 * a.vocabulary;
    const Scratch<float> scratch(threads * scratch_of_thread);
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t row = 0; row < a.rows; ++row) {
            float* exponentials = scratch.get() + omp_get_thread_num() * scratch_of_thread;
            T* student = row_of<T>(a.student, row);
            const Sums sums =
                sums_of_row<T>(student, row_of<T>(a.teacher, row), a.vocabulary, a.temperature, exponentials);
            a.loss[row] = loss_of(sums, a.temperature);
            // Scaled to the teacher's sum first, so that equal rows cancel exactly.
            const Vector ratio = broadcast(static_cast<float>(sums.teacher / sums.student));
            const double weight = static_cast<double>(a.temperature) * a.gradient_weight;
            const Vector scale = broadcast(static_cast<float>(weight / sums.teacher));
            for_each_vector(a.vocabulary, [&](std::int64_t i, auto part) {
                const Vector teacher = load(exponentials + a.vocabulary + i, part);
                store(student + i, fma(load(exponentials + i, part), ratio, zero() - teacher) * scale, part);
            });
        }
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
