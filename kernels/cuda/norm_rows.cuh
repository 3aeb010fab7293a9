// SPDX-License-Identifier: Apache-2.0
// What the norms over rows share. A group of lanes (part of a warp, a warp, or several) holds one row in registers;
// rows that are not aligned to 16 bytes or too wide are read again from memory for the second pass. The gradient of the
// weight is summed by each block over its rows, and a second kernel sums the blocks in their order.
#pragma once

#include <algorithm>

#include "kernels/cuda/elements.cuh"

namespace amalgam::kernels::cuda {

inline constexpr int norm_threads = 256;

/// A row of at most lanes * packs vectors of n elements; packs = 0: of any width, nothing is held.
template <class T, int n_, int lanes_, int packs_>
struct RowShape {
    using Element = T;
    static constexpr int n = n_, lanes = lanes_, packs = packs_;
    static constexpr int kept = packs > 0 ? packs : 1;
    static constexpr int groups = norm_threads / lanes;  // rows of a block at a time
    /// Blocks of a backward kernel: as many as run at a time on an H100. A constant, so that sums over blocks do not
    /// depend on the device.
    static constexpr std::int64_t most_blocks = packs > 1 ? 2 * 132 : 6 * 132;

    static std::int64_t blocks(std::int64_t rows) { return (rows + groups - 1) / groups; }
    static std::int64_t backward_blocks(std::int64_t rows) { return std::min(blocks(rows), most_blocks); }
};

/// Calls body with the RowShape for rows of `width`. `most_packs`: 1 or 3.
template <class T, int most_packs, class Body>
void with_row_shape(std::int64_t width, bool all_aligned, Body&& body) {
    constexpr int n = vector_length<T>;
    const bool in_vectors = all_aligned && width % n == 0;
    const std::int64_t vectors = in_vectors ? width / n : std::int64_t{1} << 40;
    if (vectors <= 8) return body(RowShape<T, n, 8, 1>{});
    if (vectors <= 16) return body(RowShape<T, n, 16, 1>{});
    if (vectors <= 32) return body(RowShape<T, n, 32, 1>{});
    if constexpr (most_packs == 3) {
        if (vectors <= 3 * 32) return body(RowShape<T, n, 32, 3>{});
        if (vectors <= 3 * 64) return body(RowShape<T, n, 64, 3>{});
        if (vectors <= 3 * 128) return body(RowShape<T, n, 128, 3>{});
        if (vectors <= 3 * 256) return body(RowShape<T, n, 256, 3>{});
    }
    if (in_vectors) return body(RowShape<T, n, norm_threads, 0>{});
    return body(RowShape<T, 1, norm_threads, 0>{});
}

/// Calls body(element, j) for the lane's vectors of a row: the index of the first element, and the place among the held
/// ones.
template <class Shape, class Body>
__device__ __forceinline__ void for_each_vector(int width, Body&& body) {
    const int first = int(threadIdx.x) % Shape::lanes * Shape::n;
    constexpr int step = Shape::lanes * Shape::n;
    if constexpr (Shape::packs > 0) {
#pragma unroll
        for (int j = 0; j < Shape::packs; ++j)
            if (first + j * step < width) body(first + j * step, j);
    } else {
        for (int i = first; i < width; i += step) body(i, 0);
    }
}

/// Sum over the lanes of a row; all threads of the block call it.
template <class Shape>
__device__ __forceinline__ float row_sum(float x) {
    if constexpr (Shape::lanes <= 32) {
        return group_sum<Shape::lanes>(x);
    } else {
        constexpr int warps = Shape::lanes / 32;
        __shared__ float of_warp[norm_threads / 32];
        const int warp = int(threadIdx.x) / 32;
        x = group_sum<32>(x);
        __syncthreads();  // the last call's values have been read
        if (threadIdx.x % 32 == 0) of_warp[warp] = x;
        __syncthreads();
        float sum = 0;
#pragma unroll
        for (int i = 0; i < warps; ++i) sum += of_warp[warp / warps * warps + i];
        return sum;
    }
}

/// The weight's gradient from the rows of one block. `partial` [blocks, width] is null if it is not asked for.
template <class Shape>
class WeightGradient {
  public:
    __device__ WeightGradient(float* partial, int width)
        : of_block_(partial == nullptr ? nullptr : partial + std::int64_t(blockIdx.x) * width), width_(width) {
        if constexpr (Shape::packs == 0) {
            if (of_block_ == nullptr) return;
            const float zeros[Shape::n] = {};
            for_each_vector<Shape>(width_, [&](int i, int) { store_floats(of_block_ + i, zeros); });
        }
    }

    __device__ void add(int element, int place, const float (&x)[Shape::n]) {
        if constexpr (Shape::packs == 0) {
            if (of_block_ == nullptr) return;
            float sum[Shape::n];
            load_floats(of_block_ + element, sum);
#pragma unroll
            for (int k = 0; k < Shape::n; ++k) sum[k] += x[k];
            store_floats(of_block_ + element, sum);
        } else {
#pragma unroll
            for (int k = 0; k < Shape::n; ++k) sums_[place][k] += x[k];
        }
    }

    /// Writes the block's row of `partial`; all threads of the block call it.
    __device__ void write() {
        if constexpr (Shape::packs > 0) {
            if (of_block_ == nullptr) return;
            constexpr int row = Shape::lanes * Shape::packs * Shape::n;
            __shared__ __align__(16) float of_group[Shape::groups * row];
            float* own = of_group + int(threadIdx.x) / Shape::lanes * row;
            for_each_vector<Shape>(width_, [&](int i, int j) { store_floats(own + i, sums_[j]); });
            __syncthreads();
            for (int i = int(threadIdx.x); i < width_; i += norm_threads) {
                float sum = 0;
                for (int group = 0; group < Shape::groups; ++group) sum += of_group[group * row + i];
                of_block_[i] = sum;
            }
        }
    }

  private:
    float* of_block_;
    int width_;
    float sums_[Shape::kept][Shape::n] = {};
};

/// total[i] = sum over blocks of partial[block, i], always in the same order.
void sum_partials(const float* partial, std::int64_t blocks, std::int64_t width, float* total, cudaStream_t stream);

}  // namespace amalgam::kernels::cuda
