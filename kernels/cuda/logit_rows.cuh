// SPDX-License-Identifier: Apache-2.0
// What the losses over a vocabulary share. A row of logits is cut into slices of columns, one for each block of a
// thread-block cluster; every block copies its slices to shared memory once, so that each logit is read from global
// memory once however many passes follow. Several blocks share a multiprocessor: one loads while others compute. Rows
// that the copy engine cannot take (not aligned to 16 bytes) or that do not fit are read from global memory instead.
#pragma once

#include <cooperative_groups.h>

#include <algorithm>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/elements.cuh"

namespace amalgam::kernels::cuda {

inline constexpr int logit_threads = 256;
inline constexpr int logit_pieces = 4;  // of a slice, each with its own barrier: the first pass follows the copy
inline constexpr float log2_e = 1.442695041F;
inline constexpr double ln_2 = 0.6931471805599453;

struct Slicing {
    int blocks = 1;            // of the cluster
    std::int64_t columns = 0;  // of one block
    std::size_t bytes = 0;     // of shared memory; 0: rows stay in global memory
};

/// How to cut rows of which `tensors` are staged together: two or three blocks on a multiprocessor if 8 blocks a
/// cluster (the portable limit) allow it, else larger slices.
inline Slicing slicing_of(std::int64_t vocabulary, int tensors, std::int64_t element_bytes) {
    constexpr std::int64_t three_on_one = 76 * 1000, most = 224 * 1000;
    for (const std::int64_t limit : {three_on_one, most}) {
        for (int blocks = 1; blocks <= 8; blocks *= 2) {
            const std::int64_t columns = ((vocabulary + blocks - 1) / blocks + 7) / 8 * 8;
            const std::int64_t bytes = tensors * columns * element_bytes;
            if (bytes <= limit && columns * (blocks - 1) < vocabulary)
                return {blocks, columns, static_cast<std::size_t>(bytes)};
        }
    }
    return {1, vocabulary, 0};
}

/// Queues `kernel` over `rows` rows, one cluster each.
template <class Arguments>
void launch_rows(void (*kernel)(Arguments), const Arguments& arguments, std::int64_t rows, const Slicing& slicing,
                 cudaStream_t stream, const char* operation) {
    if (rows == 0) return;
    if (slicing.bytes > 0) allow_shared_memory(kernel, static_cast<int>(slicing.bytes), operation);
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(slicing.blocks);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = dim3(static_cast<unsigned>(rows * slicing.blocks));
    configuration.blockDim = dim3(logit_threads);
    configuration.dynamicSmemBytes = slicing.bytes;
    configuration.stream = stream;
    configuration.attrs = &cluster;
    configuration.numAttrs = 1;
    check(cudaLaunchKernelEx(&configuration, kernel, arguments), operation);
}

/// The pieces of one block's slice on their way to shared memory.
template <class T, int tensors>
class StagedSlice {
  public:
    /// Starts the copies; all threads of the block call it. `rows` point at the slice's first column.
    __device__ StagedSlice(unsigned char* memory, std::uint64_t* barriers, const T* const (&rows)[tensors], int columns,
                           int count)
        : barriers_(barriers), count_(count), piece_((count / logit_pieces + 7) / 8 * 8) {
        for (int i = 0; i < tensors; ++i) logits_[i] = reinterpret_cast<T*>(memory) + i * columns;
        if (threadIdx.x == 0) {
            for (int p = 0; p < logit_pieces; ++p) barrier_init(barriers_ + p);
            barrier_init_fence();
            for (int p = 0; p < logit_pieces; ++p) {
                const int bytes = (end(p) - begin(p)) * int(sizeof(T));
                barrier_expect(barriers_ + p, unsigned(tensors * bytes));
                if (bytes == 0) continue;
                for (int i = 0; i < tensors; ++i)
                    bulk_copy(logits_[i] + begin(p), rows[i] + begin(p), bytes, barriers_ + p);
            }
        }
        __syncthreads();
    }

    __device__ int begin(int piece) const { return min(piece * piece_, count_); }
    __device__ int end(int piece) const {
        return piece == logit_pieces - 1 ? count_ : min((piece + 1) * piece_, count_);
    }
    __device__ void wait(int piece) const { barrier_wait(barriers_ + piece, 0); }
    __device__ const T* logits(int tensor) const { return logits_[tensor]; }

  private:
    std::uint64_t* barriers_;
    int count_, piece_;
    T* logits_[tensors];
};

/// The largest of the thread's part of [begin, end); NaNs are passed over: they reach the result through the sums.
template <int n, class T>
__device__ __forceinline__ float largest_of(const T* logits, int begin, int end, float largest) {
    if constexpr (n == 8) {
        __nv_bfloat162 pairs[4];
        for (auto& pair : pairs) pair = __float2bfloat162_rn(largest);
        for (int i = begin + n * int(threadIdx.x); i < end; i += n * logit_threads) {
            const auto pack = *reinterpret_cast<const Pack<__nv_bfloat162, 4>*>(logits + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) pairs[j] = __hmax2(pairs[j], pack.element[j]);
        }
        const __nv_bfloat162 pair = __hmax2(__hmax2(pairs[0], pairs[1]), __hmax2(pairs[2], pairs[3]));
        return fmaxf(__low2float(pair), __high2float(pair));
    } else {
        for (int i = begin + n * int(threadIdx.x); i < end; i += n * logit_threads) {
            float x[n];
            load<n>(logits + i, x);
#pragma unroll
            for (int j = 0; j < n; ++j) largest = fmaxf(largest, x[j]);
        }
        return largest;
    }
}

/// An integer near `largest` times `scale`: what is subtracted from scaled logits before 2^x. As an integer it costs
/// no rounding, neither here nor where slices with different centres are joined.
__device__ __forceinline__ float centre_of(float largest, float scale) {
    return largest == -INFINITY ? 0.0F : rintf(largest * scale);
}

__device__ __forceinline__ float warp_maximum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, distance));
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
    return x;
}

/// Maximum of `count` values each, over the block; every thread gets them.
template <int count>
__device__ __forceinline__ void block_maximum(float (&values)[count]) {
    constexpr int warps = logit_threads / 32;
    __shared__ float of_warp[count][warps];
#pragma unroll
    for (int v = 0; v < count; ++v) {
        values[v] = warp_maximum(values[v]);
        if (threadIdx.x % 32 == 0) of_warp[v][threadIdx.x / 32] = values[v];
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < count; ++v)
        for (int warp = 0; warp < warps; ++warp) values[v] = fmaxf(values[v], of_warp[v][warp]);
}

/// Sums over the block, in double precision and always in the same order; only the first warp gets them.
template <int count>
__device__ __forceinline__ void block_sum(const float (&values)[count], double (&sums)[count]) {
    constexpr int warps = logit_threads / 32;
    __shared__ double of_warp[count][warps];
#pragma unroll
    for (int v = 0; v < count; ++v) {
        const double sum = warp_sum(values[v]);
        if (threadIdx.x % 32 == 0) of_warp[v][threadIdx.x / 32] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < count; ++v) {
        sums[v] = 0;
        if (threadIdx.x < 32)
            for (int warp = 0; warp < warps; ++warp) sums[v] += of_warp[v][warp];
    }
}

}  // namespace amalgam::kernels::cuda
