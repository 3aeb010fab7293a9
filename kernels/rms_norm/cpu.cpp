// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/blocks.h"
#include "kernels/rms_norm/rms_norm.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

template <class T>
void forward_row(const RmsNormForward& a, std::int64_t token, std::int64_t head) {
    const std::int64_t offset = head * a.width;
    const float* weight = a.weight;
    const T* s = row_of<T>(a.x, token, offset);
    Vector squares = zero();
    if (a.residual) {
        const T* residual = row_of<T>(a.residual, token, offset);
        T* written = row_of<T>(a.sum, token, offset);
        for_each_vector(a.width, [&](std::int64_t i, auto part) {
            const Vector value = as_stored(written, load(s + i, part) + load(residual + i, part));
            store(written + i, value, part);
            squares = fma(value, value, squares);
        });
        s = written;
    } else {
        for_each_vector(a.width, [&](std::int64_t i, auto part) {
            const Vector value = load(s + i, part);
            squares = fma(value, value, squares);
        });
    }
    const float rstd = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(a.width) + a.epsilon);
    if (a.rstd != nullptr) a.rstd[token * a.heads + head] = rstd;
    T* y = row_of<T>(a.y, token, offset);
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        store(y + i, load(s + i, part) * broadcast(rstd) * load(weight + i, part), part);
    });
}

template <class T>
void backward_row(const RmsNormBackward& a, std::int64_t token, std::int64_t head, float* weight_gradient) {
    const std::int64_t offset = head * a.width;
    const float* weight = a.weight;
    const T* y_gradient = row_of<T>(a.y_gradient, token, offset);
    const T* x = row_of<T>(a.x, token, offset);
    const float saved = a.rstd[token * a.heads + head];
    const Vector rstd = broadcast(saved);
    Vector products = zero();
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector dy = load(y_gradient + i, part);
        const Vector h = load(x + i, part) * rstd;
        products = fma(dy * load(weight + i, part), h, products);
        if (weight_gradient != nullptr) {
            store(weight_gradient + i, fma(dy, h, load(weight_gradient + i, part)), part);
        }
    });
    const Vector mean = broadcast(sum(products) / static_cast<float>(a.width));
    T* x_gradient = row_of<T>(a.x_gradient, token, offset);
    const T* sum_gradient = a.sum_gradient ? row_of<T>(a.sum_gradient, token, offset) : nullptr;
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector g = load(y_gradient + i, part) * load(weight + i, part);
        Vector dx = rstd * (g - load(x + i, part) * rstd * mean);
        if (sum_gradient != nullptr) dx = dx + load(sum_gradient + i, part);
        store(x_gradient + i, dx, part);
    });
}

}  // namespace

void rms_norm_forward(const RmsNormForward& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t token = 0; token < a.tokens; ++token) {
            for (std::int64_t head = 0; head < a.heads; ++head) forward_row<T>(a, token, head);
        }
    });
}

void rms_norm_backward(const RmsNormBackward& a, int threads) {
    const Blocks blocks = blocks_of(a.tokens, 16);
    const bool wants_weight = a.weight_gradient != nullptr;
    const Scratch<float> partial(wants_weight ? blocks.count * a.width : 0);
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t block = 0; block < blocks.count; ++block) {
            float* weight_gradient = wants_weight ? partial.get() + block * a.width : nullptr;
            if (wants_weight) std::memset(weight_gradient, 0, sizeof(float) * a.width);
            const std::int64_t end = blocks.end(block, a.tokens);
            for (std::int64_t token = block * blocks.size; token < end; ++token) {
                for (std::int64_t head = 0; head < a.heads; ++head) backward_row<T>(a, token, head, weight_gradient);
            }
        }
    });
    if (wants_weight) sum_blocks(partial.get(), blocks.count, a.width, a.weight_gradient);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
