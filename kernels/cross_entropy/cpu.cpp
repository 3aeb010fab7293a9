// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <omp.h>

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/elementwise/blocks.h"
#include "kernels/elementwise/softmax.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

float value_of(const float* logit) {
    return *logit;
}

float value_of(const Bfloat16* logit) {
    const std::uint32_t bits = static_cast<std::uint32_t>(logit->bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

// The sum of exp(logit - maximum); `exponentials` [columns], if given, keeps the terms.
template <class T>
double sum_of_exponentials(const T* logits, std::int64_t columns, float maximum, float* exponentials) {
    double total = 0;
    for_each_block(columns, [&](std::int64_t begin, std::int64_t count) {
        Vector block_sum = zero();
        for_each_vector(count, [&](std::int64_t j, auto part) {
            const std::int64_t i = begin + j;
            const Vector centred = load(logits + i, part) - broadcast(maximum);
            const Vector exponential = accurate_exponential(fill_absent(centred, part, negative_infinity));
            block_sum = block_sum + exponential;
            if (exponentials != nullptr) store(exponentials + i, exponential, part);
        });
        total += sum(block_sum);
    });
    return total;
}

template <class T>
bool is_first_maximum(const T* logits, std::int64_t target, float maximum) {
    if (value_of(logits + target) != maximum) return false;
    for (std::int64_t i = 0; i < target; ++i) {
        if (value_of(logits + i) == maximum) return false;
    }
    return true;
}

// Writes loss and correctness of one row and returns the sum of its exponentials.
template <class T>
double loss_of_row(const T* logits, std::int64_t columns, std::int64_t target, float* exponentials, float* loss,
                   std::uint8_t* correct) {
    const float maximum = row_maximum(logits, columns);
    const double total = sum_of_exponentials(logits, columns, maximum, exponentials);
    *loss = static_cast<float>(log(total) + (static_cast<double>(maximum) - value_of(logits + target)));
    if (correct != nullptr) *correct = *loss == *loss && is_first_maximum(logits, target, maximum) ? 1 : 0;
    return total;
}

}  // namespace

void cross_entropy(const CrossEntropy& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t row = 0; row < a.rows; ++row) {
            std::uint8_t* correct = a.correct != nullptr ? a.correct + row : nullptr;
            if (a.targets[row] < 0) {
                a.loss[row] = 0;
                if (correct != nullptr) *correct = 0;
                continue;
            }
            loss_of_row(row_of<T>(a.logits, row), a.vocabulary, a.targets[row], nullptr, a.loss + row, correct);
        }
    });
}

void cross_entropy_with_gradient(const CrossEntropyGradient& a, int threads) {
    const Scratch<float> scratch(threads * a.vocabulary);
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t row = 0; row < a.rows; ++row) {
            T* logits = row_of<T>(a.logits, row);
            const std::int64_t target = a.targets[row];
            std::uint8_t* correct = a.correct != nullptr ? a.correct + row : nullptr;
            if (target < 0) {
                a.loss[row] = 0;
                if (correct != nullptr) *correct = 0;
                std::memset(logits, 0, sizeof(T) * a.vocabulary);
                continue;
            }
            float* exponentials = scratch.get() + omp_get_thread_num() * a.vocabulary;
            const double total = loss_of_row<T>(logits, a.vocabulary, target, exponentials, a.loss + row, correct);
            // Before the scaling, the gradient at the target is (exp - total): one subtraction, no special case.
            exponentials[target] = static_cast<float>(exponentials[target] - total);
            const Vector scale = broadcast(static_cast<float>(a.gradient_weight / total));
            for_each_vector(a.vocabulary, [&](std::int64_t i, auto part) {
                store(logits + i, load(exponentials + i, part) * scale, part);
            });
        }
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
