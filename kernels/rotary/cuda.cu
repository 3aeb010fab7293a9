// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/elements.cuh"
#include "kernels/rotary/rotary.h"

namespace amalgam::kernels::cuda {
namespace {

constexpr int threads = 256;

// A thread for each n elements of a lower half and their partners in the upper half.
template <class T, int n, bool forward>
__global__ void __launch_bounds__(threads) rotary_kernel(Rotary a, std::int64_t count) {
    const std::int64_t index = std::int64_t(blockIdx.x) * threads + threadIdx.x;
    if (index >= count) return;
    const int half = int(a.width) / 2, of_head = half / n, of_token = int(a.heads) * of_head;
    const int token = int(index / of_token), in_token = int(index % of_token);
    const int head = in_token / of_head, j = in_token % of_head * n;
    const std::int64_t offset = std::int64_t(head) * a.width + j;
    const T* x = row_of<T>(a.x, token) + offset;
    T* y = row_of<T>(a.y, token) + offset;
    const std::int64_t table = std::int64_t(token % int(a.positions)) * a.width + j;
    float low[n], high[n], cos_low[n], cos_high[n], sin_low[n], sin_high[n];
    load<n>(x, low);
    load<n>(x + half, high);
    load_floats(a.cos + table, cos_low);
    load_floats(a.cos + table + half, cos_high);
    load_floats(a.sin + table, sin_low);
    load_floats(a.sin + table + half, sin_high);
#pragma unroll
    for (int k = 0; k < n; ++k) {
        const float l = low[k], h = high[k];
        low[k] = forward ? l * cos_low[k] - h * sin_low[k] : l * cos_low[k] + h * sin_high[k];
        high[k] = forward ? h * cos_high[k] + l * sin_high[k] : h * cos_high[k] - l * sin_low[k];
    }
    store<n>(y, low);
    store<n>(y + half, high);
}

template <bool forward>
void run(const Rotary& a, cudaStream_t stream) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        constexpr int n = vector_length<T>;
        const bool in_vectors =
            a.width / 2 % n == 0 && aligned(a.x, a.type) && aligned(a.y, a.type) && aligned(a.cos) && aligned(a.sin);
        const std::int64_t count = a.tokens * a.heads * (a.width / 2) / (in_vectors ? n : 1);
        if (count == 0) return;
        const auto grid = unsigned((count + threads - 1) / threads);
        if (in_vectors) {
            rotary_kernel<T, n, forward><<<grid, threads, 0, stream>>>(a, count);
        } else {
            rotary_kernel<T, 1, forward><<<grid, threads, 0, stream>>>(a, count);
        }
    });
    check_launch("rotary");
}

}  // namespace

void rotary_forward(const Rotary& a, Stream stream) {
    run<true>(a, stream);
}
void rotary_backward(const Rotary& a, Stream stream) {
    run<false>(a, stream);
}

}  // namespace amalgam::kernels::cuda
