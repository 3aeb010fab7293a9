// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/cuda/elements.cuh"

namespace amalgam::kernels::cuda {
namespace {

constexpr int threads = 256, most_parameters = 320;
constexpr std::int64_t block_elements = 4096;
constexpr int square_blocks = int(sum_of_squares_workspace / sizeof(double)), square_threads = 512;

struct Parameter {
    const float* gradient;
    float *master, *exp_avg, *exp_avg_sq;
    Bfloat16* copy;
    std::int64_t count;
    float decay, step_size;
    bool aligned;           // but for the gradient
    bool gradient_aligned;  // a view of a flat buffer often is not
};

struct Arguments {
    int parameters;
    float gradient_multiplier, beta1_rest, beta2, beta2_rest, inverse_root, epsilon;
    GradientClip clip;
    std::int64_t first_block[most_parameters + 1];
    Parameter parameter[most_parameters];
};
static_assert(sizeof(Arguments) < 32000, "more than a kernel takes as arguments");

// The factor on the gradients, 0 if the step is to be left out.
__device__ float multiplier(const Arguments& a) {
    if (a.clip.squares == nullptr) return a.gradient_multiplier;
    const double norm = sqrt(*a.clip.squares) * a.gradient_multiplier;
    if (!isfinite(norm)) return 0.0F;
    const double clip = a.clip.clip;
    return static_cast<float>(a.gradient_multiplier * (clip > 0 && norm > clip ? clip / norm : 1.0));
}

template <int n>
__device__ __forceinline__ void update(const Arguments& a, const Parameter& p, float factor, std::int64_t i) {
    float gradient[n], average[n], square[n], master[n];
    if (n == 1 || p.gradient_aligned) {
        load<n>(p.gradient + i, gradient);
    } else {
#pragma unroll
        for (int k = 0; k < n; ++k) gradient[k] = p.gradient[i + k];
    }
    load<n>(p.exp_avg + i, average);
    load<n>(p.exp_avg_sq + i, square);
    load<n>(p.master + i, master);
#pragma unroll
    for (int k = 0; k < n; ++k) {
        const float g = gradient[k] * factor;
        average[k] = fmaf(g - average[k], a.beta1_rest, average[k]);
        square[k] = fmaf(a.beta2_rest * g, g, a.beta2 * square[k]);
        const float denominator = fmaf(sqrtf(square[k]), a.inverse_root, a.epsilon);
        master[k] = master[k] * p.decay - p.step_size * average[k] / denominator;
    }
    store<n>(p.exp_avg + i, average);
    store<n>(p.exp_avg_sq + i, square);
    store<n>(p.master + i, master);
    if (p.copy != nullptr) store<n>(p.copy + i, master);
}

__global__ void __launch_bounds__(threads) step_kernel(const __grid_constant__ Arguments a) {
    const float factor = multiplier(a);
    if (a.clip.squares != nullptr && factor == 0.0F) return;
    int low = 0, high = a.parameters;  // the parameter of this block lies in [low, high)
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (a.first_block[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const Parameter& p = a.parameter[low];
    const std::int64_t begin = (blockIdx.x - a.first_block[low]) * block_elements;
    const std::int64_t end = min(begin + block_elements, p.count);
    if (!p.aligned) {
        for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) update<1>(a, p, factor, i);
        return;
    }
#pragma unroll 2
    for (std::int64_t i = begin + 4 * threadIdx.x; i < end; i += 4 * threads) {
        if (i + 4 <= end) {
            update<4>(a, p, factor, i);
        } else {
            for (std::int64_t k = i; k < end; ++k) update<1>(a, p, factor, k);
        }
    }
}

// Sum over the block, the first thread gets it.
__device__ double block_sum(double x) {
    __shared__ double of_warp[square_threads / 32];
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < square_threads / 32; ++warp) x += of_warp[warp];
    return x;
}

// Which block and thread adds which value depends on the number of values alone.
__global__ void __launch_bounds__(square_threads)
    square_kernel(const float* values, std::int64_t count, bool aligned, double* partial) {
    double sum = 0;
    const std::int64_t step = std::int64_t(square_blocks) * square_threads * 4;
#pragma unroll 4
    for (std::int64_t i = (std::int64_t(blockIdx.x) * square_threads + threadIdx.x) * 4; i < count; i += step) {
        float x[4] = {};
        if (aligned && i + 4 <= count) {
            load<4>(values + i, x);
        } else {
            for (int k = 0; k < 4; ++k)
                if (i + k < count) x[k] = values[i + k];
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) sum += double(x[k]) * double(x[k]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(square_threads) square_sum_kernel(const double* partial, double* result) {
    double sum = 0;
    for (int i = int(threadIdx.x); i < square_blocks; i += square_threads) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *result = sum;
}

}  // namespace

void adamw_step(const AdamwStep& settings, std::span<const AdamwParameter> parameters, const GradientClip& clip,
                Stream stream) {
    if (settings.step < 1)
        throw std::invalid_argument(
            "adamw: step is below 1 (the bias correction divides by 1 - beta^step) count from 1");
    const auto step = static_cast<double>(settings.step);
    const double correction1 = 1 - std::pow(settings.beta1, step), correction2 = 1 - std::pow(settings.beta2, step);
    Arguments a{};
    a.gradient_multiplier = static_cast<float>(settings.gradient_multiplier);
    a.beta1_rest = static_cast<float>(1 - settings.beta1);
    a.beta2 = static_cast<float>(settings.beta2);
    a.beta2_rest = static_cast<float>(1 - settings.beta2);
    a.inverse_root = static_cast<float>(1 / std::sqrt(correction2));
    a.epsilon = static_cast<float>(settings.epsilon);
    a.clip = clip;
    const auto launch = [&] {
        const std::int64_t blocks = a.first_block[a.parameters];
        if (blocks > 0) step_kernel<<<unsigned(blocks), threads, 0, stream>>>(a);
        check_launch("adamw");
        a.parameters = 0;
    };
    for (const AdamwParameter& p : parameters) {
        if (a.parameters == most_parameters) launch();
        a.parameter[a.parameters] = {p.gradient,
                                     p.master,
                                     p.exp_avg,
                                     p.exp_avg_sq,
                                     static_cast<Bfloat16*>(p.bfloat16_copy),
                                     p.count,
                                     static_cast<float>(1 - p.learning_rate * settings.weight_decay),
                                     static_cast<float>(p.learning_rate / correction1),
                                     aligned(p.master) && aligned(p.exp_avg) && aligned(p.exp_avg_sq) &&
                                         reinterpret_cast<std::uintptr_t>(p.bfloat16_copy) % 8 == 0,
                                     aligned(p.gradient)};
        a.first_block[a.parameters + 1] = a.first_block[a.parameters] + (p.count + block_elements - 1) / block_elements;
        ++a.parameters;
    }
    launch();
}

void sum_of_squares(const float* values, std::int64_t count, double* result, void* workspace, Stream stream) {
    auto* partial = static_cast<double*>(workspace);
    square_kernel<<<square_blocks, square_threads, 0, stream>>>(values, count, aligned(values), partial);
    square_sum_kernel<<<1, square_threads, 0, stream>>>(partial, result);
    check_launch("sum_of_squares");
}

}  // namespace amalgam::kernels::cuda
