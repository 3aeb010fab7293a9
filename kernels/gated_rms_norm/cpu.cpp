// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/blocks.h"
#include "kernels/elementwise/exponential.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

template <class T>
void forward_row(const GatedRmsNormForward& a, std::int64_t token, std::int64_t head) {
    const std::int64_t offset = head * a.width;
    const float* weight = a.weight;
    const T* o = row_of<T>(a.o, token, offset);
    const T* z = a.z ? row_of<T>(a.z, token, offset) : nullptr;
    T* y = row_of<T>(a.y, token, offset);
    float rstd = 1.0F;
    if (weight != nullptr) {
        Vector squares = zero();
        for_each_vector(a.width, [&](std::int64_t i, auto part) {
            const Vector value = load(o + i, part);
            squares = fma(value, value, squares);
        });
        rstd = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(a.width) + a.epsilon);
        if (a.rstd != nullptr) a.rstd[token * a.heads + head] = rstd;
    }
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        Vector value = load(o + i, part);
        if (weight != nullptr) value = value * broadcast(rstd) * load(weight + i, part);
        if (z != nullptr) {
            const Vector gate = load(z + i, part);
            value = value * (gate * accurate_sigmoid(gate));
        }
        store(y + i, value, part);
    });
}

// Writes dz and, over the row of scratch `inner`, dy silu(z): the gradient of n.
template <class T>
void backward_gate(const GatedRmsNormBackward& a, std::int64_t token, std::int64_t offset, Vector rstd, float* inner) {
    const float* weight = a.weight;
    const T* y_gradient = row_of<T>(a.y_gradient, token, offset);
    const T* o = row_of<T>(a.o, token, offset);
    const T* z = row_of<T>(a.z, token, offset);
    T* z_gradient = row_of<T>(a.z_gradient, token, offset);
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector dy = load(y_gradient + i, part);
        const Vector gate = load(z + i, part);
        const Vector sigmoid = accurate_sigmoid(gate);
        const Vector silu = gate * sigmoid;
        Vector n = load(o + i, part);
        if (weight != nullptr) n = n * rstd * load(weight + i, part);
        // silu'(z) = sigmoid(z) (1 + z (1 - sigmoid(z))) = sigmoid(z) + silu(z) (1 - sigmoid(z))
        store(z_gradient + i, dy * n * fma(silu, broadcast(1.0F) - sigmoid, sigmoid), part);
        store(inner + i, dy * silu, part);
    });
}

template <class T>
void backward_row(const GatedRmsNormBackward& a, std::int64_t token, std::int64_t head, float* inner,
                  float* weight_gradient) {
    const std::int64_t offset = head * a.width;
    const float* weight = a.weight;
    const T* o = row_of<T>(a.o, token, offset);
    T* o_gradient = row_of<T>(a.o_gradient, token, offset);
    const Vector rstd = broadcast(weight != nullptr ? a.rstd[token * a.heads + head] : 1.0F);
    if (a.z) {
        backward_gate<T>(a, token, offset, rstd, inner);
    } else {
        const T* y_gradient = row_of<T>(a.y_gradient, token, offset);
        for_each_vector(a.width,
                        [&](std::int64_t i, auto part) { store(inner + i, load(y_gradient + i, part), part); });
    }
    if (weight == nullptr) {
        for_each_vector(a.width,
                        [&](std::int64_t i, auto part) { store(o_gradient + i, load(inner + i, part), part); });
        return;
    }
    Vector products = zero();
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector dn = load(inner + i, part);
        const Vector h = load(o + i, part) * rstd;
        products = fma(dn * load(weight + i, part), h, products);
        if (weight_gradient != nullptr) {
            store(weight_gradient + i, fma(dn, h, load(weight_gradient + i, part)), part);
        }
    });
    const Vector mean = broadcast(sum(products) / static_cast<float>(a.width));
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector g = load(inner + i, part) * load(weight + i, part);
        store(o_gradient + i, rstd * (g - load(o + i, part) * rstd * mean), part);
    });
}

}  // namespace

void gated_rms_norm_forward(const GatedRmsNormForward& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t token = 0; token < a.tokens; ++token) {
            for (std::int64_t head = 0; head < a.heads; ++head) forward_row<T>(a, token, head);
        }
    });
}

void gated_rms_norm_backward(const GatedRmsNormBackward& a, int threads) {
    const Blocks blocks = blocks_of(a.tokens, 16);
    const bool wants_weight = a.weight != nullptr && a.weight_gradient != nullptr;
    const Scratch<float> partial(blocks.count * a.width);
    const Scratch<float> inner_rows(blocks.count * a.width);
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t block = 0; block < blocks.count; ++block) {
            float* weight_gradient = wants_weight ? partial.get() + block * a.width : nullptr;
            if (wants_weight) std::memset(weight_gradient, 0, sizeof(float) * a.width);
            float* inner = inner_rows.get() + block * a.width;
            const std::int64_t end = blocks.end(block, a.tokens);
            for (std::int64_t token = block * blocks.size; token < end; ++token) {
                for (std::int64_t head = 0; head < a.heads; ++head) {
                    backward_row<T>(a, token, head, inner, weight_gradient);
                }
            }
        }
    });
    if (wants_weight) sum_blocks(partial.get(), blocks.count, a.width, a.weight_gradient);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
