// SPDX-License-Identifier: Apache-2.0
// One cluster of blocks for each row (kernels/cuda/logit_rows.cuh): a pass for the maximum, one for the sum, and after
// the blocks of the cluster have exchanged theirs, one that writes the gradient.
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/cuda/logit_rows.cuh"

namespace amalgam::kernels::cuda {
namespace {

namespace cg = cooperative_groups;

struct Arguments {
    std::int64_t vocabulary, slice;
    float gradient_weight;
    ConstRows logits;
    Rows gradient;  // null: loss only
    const std::int64_t* targets;
    float* loss;
    std::uint8_t* correct;  // null: not asked for
};

// Of one slice, or of the whole row. Exponents are in units of log 2 and relative to the centre.
struct Sum {
    float centre;
    bool beaten;   // another logit is larger than the target's, or as large and before it
    double total;  // of 2^exponent
};

// `target` counts from the first column of the slice.
template <int n, class T>
__device__ Sum slice_sum(const T* logits, int count, std::int64_t target, float target_logit, float centre) {
    float partial[1] = {};
    bool beaten = false;
    for (int i = n * int(threadIdx.x); i < count; i += n * logit_threads) {
        float x[n];
        load<n>(logits + i, x);
#pragma unroll
        for (int j = 0; j < n; ++j) {
            partial[0] += exp2_approximate(fmaf(x[j], log2_e, -centre));
            beaten |= i + j < target ? x[j] >= target_logit : x[j] > target_logit;
        }
    }
    double total[1];
    const bool beaten_here = __syncthreads_or(beaten) != 0;
    block_sum(partial, total);
    return {centre, beaten_here, total[0]};
}

// The sum of the row from those of all slices; the first warp calls it, and a lane takes a slice.
__device__ Sum joined(cg::cluster_group& cluster, Sum* of_slice) {
    Sum part{-INFINITY, false, 0};
    if (threadIdx.x < cluster.num_blocks()) part = *cluster.map_shared_rank(of_slice, threadIdx.x);
    // A slice of nothing but -infinity has centre 0 and must not raise the row's.
    const bool any = part.total != 0.0;
    Sum row;
    row.centre = warp_maximum(any ? part.centre : -INFINITY);
    row.beaten = __any_sync(0xffffffffU, part.beaten) != 0;
    row.total = warp_sum(any ? part.total * exp2_approximate(part.centre - row.centre) : 0.0);
    return row;
}

template <int n, class T>
__device__ void write_gradient(const T* logits, T* gradient, int count, std::int64_t target, const Sum& row,
                               float weight) {
    const float factor = static_cast<float>(weight / row.total), total = static_cast<float>(row.total);
    for (int i = n * int(threadIdx.x); i < count; i += n * logit_threads) {
        float x[n];
        load<n>(logits + i, x);
#pragma unroll
        for (int j = 0; j < n; ++j) {
            x[j] = exp2_approximate(fmaf(x[j], log2_e, -row.centre));
            // Before the scaling, the gradient at the target is (power - total).
            if (i + j == target) x[j] -= total;
            x[j] *= factor;
        }
        store<n>(gradient + i, x);
    }
}

template <int n, class T>
__device__ void write_zeros(T* gradient, int count) {
    const float zeros[n] = {};
    for (int i = n * int(threadIdx.x); i < count; i += n * logit_threads) store<n>(gradient + i, zeros);
}

template <class T, bool staged>
__global__ void __launch_bounds__(logit_threads) rows_kernel(Arguments a) {
    constexpr int n = staged ? vector_length<T> : 1;
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ std::uint64_t barriers[logit_pieces];
    __shared__ Sum of_slice, of_row;
    cg::cluster_group cluster = cg::this_cluster();
    const std::int64_t row = blockIdx.x / cluster.num_blocks();
    const std::int64_t first = cluster.block_rank() * a.slice;
    const int count = static_cast<int>(min(a.slice, a.vocabulary - first));
    const bool writes_loss = cluster.block_rank() == 0 && threadIdx.x == 0;
    T* gradient = a.gradient.data != nullptr ? row_of<T>(a.gradient, row) + first : nullptr;

    const std::int64_t target = a.targets[row];
    if (target < 0) {  // all blocks of the cluster leave here
        if (gradient != nullptr) write_zeros<n>(gradient, count);
        if (writes_loss) a.loss[row] = 0;
        if (writes_loss && a.correct != nullptr) a.correct[row] = 0;
        return;
    }
    const bool outside = target >= a.vocabulary;
    const float target_logit = outside ? NAN : widen(row_of<T>(a.logits, row)[target]);
    const T* const rows[1] = {row_of<T>(a.logits, row) + first};
    const T* logits = rows[0];

    float largest[1] = {-INFINITY};
    if constexpr (staged) {
        const StagedSlice<T, 1> slice(memory, barriers, rows, static_cast<int>(a.slice), count);
        logits = slice.logits(0);
        for (int p = 0; p < logit_pieces; ++p) {
            slice.wait(p);
            largest[0] = largest_of<n>(logits, slice.begin(p), slice.end(p), largest[0]);
        }
    } else {
        largest[0] = largest_of<n>(logits, 0, count, largest[0]);
    }
    block_maximum(largest);

    const Sum sum = slice_sum<n>(logits, count, target - first, target_logit, centre_of(largest[0], log2_e));
    if (threadIdx.x == 0) of_slice = sum;
    cluster.sync();  // also: every block has read the target's logit before one of them overwrites it
    if (threadIdx.x < 32) {
        const Sum sum_of_row = joined(cluster, &of_slice);
        if (threadIdx.x == 0) of_row = sum_of_row;
        if (writes_loss) {
            const double exponent = static_cast<double>(target_logit) * log2_e - sum_of_row.centre;
            const float loss = static_cast<float>(ln_2 * (log2(sum_of_row.total) - exponent));
            a.loss[row] = loss;
            if (a.correct != nullptr) a.correct[row] = loss == loss && !sum_of_row.beaten ? 1 : 0;
        }
    }
    __syncthreads();
    cluster.barrier_arrive();  // this block reads no other's memory any more
    if (gradient != nullptr) {
        write_gradient<n>(logits, gradient, count, target - first, of_row, outside ? NAN : a.gradient_weight);
    }
    cluster.barrier_wait();
}

void run(ElementType type, std::int64_t rows, const Arguments& given, cudaStream_t stream) {
    with_element_type(type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        Arguments arguments = given;
        const bool staged = given.vocabulary % 8 == 0 && aligned(given.logits, type);
        const Slicing slicing = staged ? slicing_of(given.vocabulary, 1, sizeof(T)) : Slicing{1, given.vocabulary, 0};
        arguments.slice = slicing.columns;
        launch_rows(slicing.bytes > 0 ? rows_kernel<T, true> : rows_kernel<T, false>, arguments, rows, slicing, stream,
                    "cross_entropy");
    });
}

}  // namespace

void cross_entropy(const CrossEntropy& a, Stream stream) {
    run(a.type, a.rows, {a.vocabulary, 0, 0, a.logits, {}, a.targets, a.loss, a.correct}, stream);
}

void cross_entropy_with_gradient(const CrossEntropyGradient& a, Stream stream) {
    run(a.type, a.rows, {a.vocabulary, 0, a.gradient_weight, a.logits, a.logits, a.targets, a.loss, a.correct}, stream);
}

}  // namespace amalgam::kernels::cuda
