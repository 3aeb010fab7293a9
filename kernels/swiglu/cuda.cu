// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/swiglu/swiglu.h"

namespace amalgam::kernels::cuda {
namespace {

constexpr int threads = 256;

// A thread for each vector of n elements; a row of blocks for each token.
template <class T, int n>
__global__ void __launch_bounds__(threads) forward_kernel(const __grid_constant__ SwigluForward a) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const std::int64_t token = blockIdx.x;
    const int i = (int(blockIdx.y) * threads + int(threadIdx.x)) * n;
    if (i >= a.width) return;
    float gate[n], up[n];
    load<n>(row_of<T>(a.gate, token) + i, gate);
    load<n>(row_of<T>(a.up, token) + i, up);
#pragma unroll
    for (int k = 0; k < n; ++k) up[k] *= gate[k] * sigmoid<T>(gate[k]);
    store<n>(row_of<T>(a.y, token) + i, up);
}

template <class T, int n>
__global__ void __launch_bounds__(threads) backward_kernel(const __grid_constant__ SwigluBackward a) {
    wait_for_earlier_kernels();
    const std::int64_t token = blockIdx.x;
    const int i = (int(blockIdx.y) * threads + int(threadIdx.x)) * n;
    if (i >= a.width) return;
    float dy[n], gate[n], up[n];
    load<n>(row_of<T>(a.y_gradient, token) + i, dy);
    load<n>(row_of<T>(a.gate, token) + i, gate);
    load<n>(row_of<T>(a.up, token) + i, up);
#pragma unroll
    for (int k = 0; k < n; ++k) {
        const float s = sigmoid<T>(gate[k]), silu = gate[k] * s;
        gate[k] = dy[k] * up[k] * fmaf(silu, 1.0F - s, s);
        up[k] = dy[k] * silu;
    }
    store<n>(row_of<T>(a.gate_gradient, token) + i, gate);
    store<n>(row_of<T>(a.up_gradient, token) + i, up);
}

template <class Arguments>
void run(const Arguments& a, bool all_aligned, void (*const (&kernels)[4])(Arguments), cudaStream_t stream) {
    if (a.tokens == 0 || a.width == 0) return;
    const bool narrow = a.type == ElementType::bfloat16;
    const int length = narrow ? 8 : 4;
    const bool in_vectors = all_aligned && a.width % length == 0;
    const std::int64_t vectors = in_vectors ? a.width / length : a.width;
    const dim3 grid(unsigned(a.tokens), unsigned((vectors + threads - 1) / threads));
    launch_early(kernels[2 * narrow + in_vectors], grid, threads, 0, 1, stream, "swiglu", a);
}

}  // namespace

void swiglu_forward(const SwigluForward& a, Stream stream) {
    run(a, aligned(a.gate, a.type) && aligned(a.up, a.type) && aligned(a.y, a.type),
        {forward_kernel<float, 1>, forward_kernel<float, 4>, forward_kernel<Bfloat16, 1>, forward_kernel<Bfloat16, 8>},
        stream);
}

void swiglu_backward(const SwigluBackward& a, Stream stream) {
    run(a,
        aligned(a.y_gradient, a.type) && aligned(a.gate, a.type) && aligned(a.up, a.type) &&
            aligned(a.gate_gradient, a.type) && aligned(a.up_gradient, a.type),
        {backward_kernel<float, 1>, backward_kernel<float, 4>, backward_kernel<Bfloat16, 1>,
         backward_kernel<Bfloat16, 8>},
        stream);
}

}  // namespace amalgam::kernels::cuda
