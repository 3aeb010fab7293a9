// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/blocks.h"
#include "kernels/elementwise/exponential.h"
#include "kernels/swiglu/swiglu.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

template <class T>
void forward_row(const SwigluForward& a, std::int64_t token) {
    const T* gate = row_of<T>(a.gate, token);
    const T* up = row_of<T>(a.up, token);
    T* y = row_of<T>(a.y, token);
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector x = load(gate + i, part);
        store(y + i, x * accurate_sigmoid(x) * load(up + i, part), part);
    });
}

template <class T>
void backward_row(const SwigluBackward& a, std::int64_t token) {
    const T* y_gradient = row_of<T>(a.y_gradient, token);
    const T* gate = row_of<T>(a.gate, token);
    const T* up = row_of<T>(a.up, token);
    T* gate_gradient = row_of<T>(a.gate_gradient, token);
    T* up_gradient = row_of<T>(a.up_gradient, token);
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector dy = load(y_gradient + i, part);
        const Vector x = load(gate + i, part);
        const Vector u = load(up + i, part);
        const Vector sigmoid = accurate_sigmoid(x);
        const Vector silu = x * sigmoid;
        store(gate_gradient + i, dy * u * fma(silu, broadcast(1.0F) - sigmoid, sigmoid), part);
        store(up_gradient + i, dy * silu, part);
    });
}

}  // namespace

void swiglu_forward(const SwigluForward& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t token = 0; token < a.tokens; ++token) forward_row<T>(a, token);
    });
}

void swiglu_backward(const SwigluBackward& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t token = 0; token < a.tokens; ++token) backward_row<T>(a, token);
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
