// SPDX-License-Identifier: Apache-2.0
#include <math.h>

#include "kernels/adamw/adamw.h"
#include "kernels/elementwise/elements.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr std::int64_t block_size = 16384;

struct Coefficients {
    Vector decay, gradient_multiplier, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root, epsilon;
};

Coefficients coefficients_of(const AdamwStep& a) {
    const auto vector = [](double value) { return broadcast(static_cast<float>(value)); };
    const double step = static_cast<double>(a.step);
    return {vector(1 - a.learning_rate * a.weight_decay),
            vector(a.gradient_multiplier),
            vector(1 - a.beta1),
            vector(a.beta2),
            vector(1 - a.beta2),
            vector(a.learning_rate / (1 - pow(a.beta1, step))),
            vector(1 / sqrt(1 - pow(a.beta2, step))),
            vector(a.epsilon)};
}

void update(const AdamwStep& a, const Coefficients& c, std::int64_t begin, std::int64_t count) {
    Bfloat16* copy = static_cast<Bfloat16*>(a.bfloat16_copy);
    for_each_vector(count, [&](std::int64_t j, auto part) {
        const std::int64_t i = begin + j;
        const Vector g = load(a.gradient + i, part) * c.gradient_multiplier;
        const Vector old_average = load(a.exp_avg + i, part);
        const Vector average = fma(g - old_average, c.one_minus_beta1, old_average);
        const Vector square = fma(c.one_minus_beta2 * g, g, c.beta2 * load(a.exp_avg_sq + i, part));
        const Vector denominator = fma(square_root(square), c.inverse_root, c.epsilon);
        const Vector decayed = load(a.master + i, part) * c.decay;
        const Vector updated = decayed - c.step_size * average / denominator;
        store(a.exp_avg + i, average, part);
        store(a.exp_avg_sq + i, square, part);
        store(a.master + i, updated, part);
        if (copy != nullptr) store(copy + i, updated, part);
    });
}

double block_sum_of_squares(const float* values, std::int64_t count) {
    constexpr int width = 32;  // independent sums, enough to fill the registers of every instruction set
    double partial[width] = {};
    std::int64_t i = 0;
    for (; i + width <= count; i += width) {
        for (int j = 0; j < width; ++j) {
            const double value = values[i + j];
            partial[j] += value * value;
        }
    }
    double total = 0;
    for (int j = 0; j < width; ++j) total += partial[j];
    for (; i < count; ++i) total += static_cast<double>(values[i]) * values[i];
    return total;
}

}  // namespace

void adamw_step(const AdamwStep& a, int threads) {
    const Coefficients coefficients = coefficients_of(a);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t begin = 0; begin < a.count; begin += block_size) {
        update(a, coefficients, begin, a.count - begin < block_size ? a.count - begin : block_size);
    }
}

double sum_of_squares(const float* values, std::int64_t count, int threads) {
    const std::int64_t blocks = (count + block_size - 1) / block_size;
    const Scratch<double> partial(blocks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t begin = block * block_size;
        partial.get()[block] =
            block_sum_of_squares(values + begin, count - begin < block_size ? count - begin : block_size);
    }
    double total = 0;
    for (std::int64_t block = 0; block < blocks; ++block) total += partial.get()[block];
    return total;
}

}  // namespace amalgam::kernels::AMALGAM_ISA
