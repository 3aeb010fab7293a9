// SPDX-License-Identifier: Apache-2.0
// A thread walks n channels through a stretch of time with the last inputs in registers. The gradient of the weight is
// summed by each thread over its stretch, and a second kernel sums the stretches in their order.
#include <utility>

#include "kernels/cuda/norm_rows.cuh"
#include "kernels/silu_convolution/silu_convolution.h"

namespace amalgam::kernels::cuda {
namespace {

constexpr int threads = 128;
constexpr int forward_stretch = 32, backward_stretch = 64;  // tokens

// Whose state a sequence has; negative: nobody's.
__device__ __forceinline__ int slot_of(const SiluConvolutionForward& a, int sequence) {
    return a.slot != nullptr ? a.slot[sequence] : sequence;
}
__device__ __forceinline__ int slot_of(const SiluConvolutionBackward&, int sequence) {
    return sequence;
}

// Inputs of one sequence; before its beginning those of the state, or zeros.
template <class T, int n>
struct Inputs {
    const T* x;
    std::int64_t stride, channels;
    const T* state;  // the row of time 0, or null
    int time;

    template <class Arguments>
    __device__ Inputs(const Arguments& a, int sequence, int channel, int past)
        : x(row_of<T>(a.x, std::int64_t(sequence) * a.time) + channel),
          stride(a.x.stride),
          channels(a.channels),
          state(nullptr),
          time(int(a.time)) {
        const int slot = slot_of(a, sequence);
        if (a.initial_state != nullptr && slot >= 0)
            state = static_cast<const T*>(a.initial_state) + std::int64_t(slot + 1) * past * a.channels + channel;
    }

    __device__ void read(int t, float (&to)[n]) const {
        if (t >= 0 && t < time) return widen(load_pack_anywhere<T, n>(x + t * stride), to);
        if (t < 0 && state != nullptr) return load<n>(state + t * channels, to);
#pragma unroll
        for (int k = 0; k < n; ++k) to[k] = 0;
    }
};

template <int taps, int n>
__device__ __forceinline__ void load_weight(const float* weight, int channel, float (&to)[taps][n]) {
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
        for (int j = 0; j < taps; ++j) to[j][k] = weight[(channel + k) * taps + j];
}

template <int rows, int n>
__device__ __forceinline__ void shift(float (&window)[rows][n]) {
#pragma unroll
    for (int j = 0; j + 1 < rows; ++j)
#pragma unroll
        for (int k = 0; k < n; ++k) window[j][k] = window[j + 1][k];
}

template <int taps, int n>
__device__ __forceinline__ void convolve(const float (&weight)[taps][n], const float (&x)[taps][n], float (&u)[n]) {
#pragma unroll
    for (int k = 0; k < n; ++k) {
        u[k] = weight[0][k] * x[0][k];
#pragma unroll
        for (int j = 1; j < taps; ++j) u[k] = fmaf(weight[j][k], x[j][k], u[k]);
    }
}

template <class T, int n, int taps>
__global__ void __launch_bounds__(threads) forward_kernel(SiluConvolutionForward a) {
    const int channel = (int(blockIdx.x) * threads + int(threadIdx.x)) * n, sequence = int(blockIdx.z);
    if (channel >= a.channels) return;
    const int begin = int(blockIdx.y) * forward_stretch, end = min(begin + forward_stretch, int(a.time));
    const Inputs<T, n> input(a, sequence, channel, taps - 1);
    T* y = row_of<T>(a.y, std::int64_t(sequence) * a.time) + channel;
    float weight[taps][n], x[taps][n];
    load_weight(a.weight, channel, weight);
#pragma unroll
    for (int j = 1; j < taps; ++j) input.read(begin - taps + j, x[j]);
#pragma unroll 4
    for (int t = begin; t < end; ++t) {
        shift(x);
        widen(load_pack_anywhere<T, n>(input.x + t * input.stride), x[taps - 1]);
        float u[n];
        convolve(weight, x, u);
        if (a.silu) {
#pragma unroll
            for (int k = 0; k < n; ++k) u[k] *= sigmoid<T>(u[k]);
        }
        store<n>(y + t * a.y.stride, u);
    }
}

// The last taps - 1 rows of the sequence. A thread reads all of its channel before it writes: the initial state may lie
// in the same memory.
template <class T, int taps>
__global__ void __launch_bounds__(threads) final_state_kernel(SiluConvolutionForward a) {
    const int channel = int(blockIdx.x) * threads + int(threadIdx.x), sequence = int(blockIdx.z);
    const int slot = slot_of(a, sequence);
    if (channel >= a.channels || slot < 0) return;
    const Inputs<T, 1> input(a, sequence, channel, taps - 1);
    float row[taps - 1][1];
#pragma unroll
    for (int j = 0; j < taps - 1; ++j) input.read(int(a.time) - (taps - 1) + j, row[j]);
    T* state = static_cast<T*>(a.final_state) + std::int64_t(slot) * (taps - 1) * a.channels + channel;
#pragma unroll
    for (int j = 0; j < taps - 1; ++j) store<1>(state + j * a.channels, row[j]);
}

template <class T, int n, int taps>
__global__ void __launch_bounds__(threads) backward_kernel(SiluConvolutionBackward a, float* partial) {
    constexpr int past = taps - 1;
    const int channel = (int(blockIdx.x) * threads + int(threadIdx.x)) * n, sequence = int(blockIdx.z);
    if (channel >= a.channels) return;
    const int begin = int(blockIdx.y) * backward_stretch, end = min(begin + backward_stretch, int(a.time));
    const Inputs<T, n> input(a, sequence, channel, past);
    const std::int64_t first_token = std::int64_t(sequence) * a.time;
    const T* y_gradient = row_of<T>(a.y_gradient, first_token) + channel;
    T* x_gradient = row_of<T>(a.x_gradient, first_token) + channel;
    float weight[taps][n], x[taps][n], du[taps][n] = {}, dw[taps][n] = {};
    load_weight(a.weight, channel, weight);
#pragma unroll
    for (int j = 1; j < taps; ++j) input.read(begin - taps + j, x[j]);
        // The input at time t gets its gradient from the du of t to t + past, so du runs ahead by that much.
#pragma unroll 2
    for (int t = begin; t < end + past; ++t) {
        shift(x);
        shift(du);
        input.read(t, x[past]);
        if (t < a.time) {
            load<n>(y_gradient + t * a.y_gradient.stride, du[past]);
            if (a.silu) {
                float u[n];
                convolve(weight, x, u);
#pragma unroll
                for (int k = 0; k < n; ++k) {
                    const float s = sigmoid<T>(u[k]);
                    du[past][k] *= fmaf(u[k] * s, 1.0F - s, s);
                }
            }
        } else {
#pragma unroll
            for (int k = 0; k < n; ++k) du[past][k] = 0;
        }
        if (t < end) {  // the next stretch adds its own
#pragma unroll
            for (int j = 0; j < taps; ++j)
#pragma unroll
                for (int k = 0; k < n; ++k) dw[j][k] = fmaf(du[past][k], x[j][k], dw[j][k]);
        }
        if (t - past >= begin) {
            float dx[n];
#pragma unroll
            for (int k = 0; k < n; ++k) {
                dx[k] = weight[0][k] * du[past][k];
#pragma unroll
                for (int j = 1; j < taps; ++j) dx[k] = fmaf(weight[j][k], du[past - j][k], dx[k]);
            }
            store<n>(x_gradient + (t - past) * a.x_gradient.stride, dx);
        }
    }
    if (partial == nullptr) return;
    float* of_stretch = partial + ((std::int64_t(sequence) * gridDim.y + blockIdx.y) * a.channels + channel) * taps;
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
        for (int j = 0; j < taps; ++j) of_stretch[k * taps + j] = dw[j][k];
}

// Calls body with the number of taps as a compile-time constant.
template <class Body>
void with_taps(int taps, Body&& body) {
    if (taps == 2) return body(std::integral_constant<int, 2>{});
    if (taps == 3) return body(std::integral_constant<int, 3>{});
    if (taps == 4) return body(std::integral_constant<int, 4>{});
    throw std::invalid_argument("silu_convolution: the number of taps is not 2, 3 or 4 (no kernel is compiled for it)");
}

template <class Arguments>
dim3 grid_of(const Arguments& a, int elements, int stretch) {
    const std::int64_t vectors = (a.channels + elements - 1) / elements;
    return dim3(unsigned((vectors + threads - 1) / threads), unsigned((a.time + stretch - 1) / stretch),
                unsigned(a.batch));
}

std::int64_t stretches(const SiluConvolutionBackward& a) {
    return a.batch * ((a.time + backward_stretch - 1) / backward_stretch);
}

}  // namespace

void silu_convolution_forward(const SiluConvolutionForward& a, Stream stream) {
    with_taps(a.taps, [&](auto taps) {
        constexpr int w = decltype(taps)::value;
        if (a.batch == 0 || a.channels == 0) return;
        with_element_type(a.type, [&](auto* element) {
            using T = std::remove_pointer_t<decltype(element)>;
            constexpr int n = vector_length<T>;
            const bool in_vectors = a.channels % n == 0 && aligned(a.y, a.type) && aligned(a.initial_state);
            if (a.time > 0) {
                const dim3 grid = grid_of(a, in_vectors ? n : 1, forward_stretch);
                if (in_vectors) {
                    forward_kernel<T, n, w><<<grid, threads, 0, stream>>>(a);
                } else {
                    forward_kernel<T, 1, w><<<grid, threads, 0, stream>>>(a);
                }
            }
            if (a.final_state == nullptr) return;
            const dim3 grid(unsigned((a.channels + threads - 1) / threads), 1, unsigned(a.batch));
            final_state_kernel<T, w><<<grid, threads, 0, stream>>>(a);
        });
    });
    check_launch("silu_convolution");
}

std::int64_t silu_convolution_backward_workspace(const SiluConvolutionBackward& a) {
    return a.weight_gradient == nullptr ? 0 : stretches(a) * a.channels * a.taps * 4;
}

void silu_convolution_backward(const SiluConvolutionBackward& a, void* workspace, Stream stream) {
    float* partial = a.weight_gradient != nullptr ? static_cast<float*>(workspace) : nullptr;
    with_taps(a.taps, [&](auto taps) {
        constexpr int w = decltype(taps)::value;
        if (stretches(a) == 0 || a.channels == 0) return;
        with_element_type(a.type, [&](auto* element) {
            using T = std::remove_pointer_t<decltype(element)>;
            constexpr int n = 4;  // of bfloat16 half an access: eight channels would not fit the registers
            const bool in_vectors = a.channels % n == 0 && aligned(a.y_gradient, a.type) &&
                                    aligned(a.x_gradient, a.type) && aligned(a.initial_state);
            const dim3 grid = grid_of(a, in_vectors ? n : 1, backward_stretch);
            if (in_vectors) {
                backward_kernel<T, n, w><<<grid, threads, 0, stream>>>(a, partial);
            } else {
                backward_kernel<T, 1, w><<<grid, threads, 0, stream>>>(a, partial);
            }
        });
    });
    check_launch("silu_convolution");
    if (partial != nullptr) sum_partials(partial, stretches(a), a.channels * a.taps, a.weight_gradient, stream);
}

}  // namespace amalgam::kernels::cuda
