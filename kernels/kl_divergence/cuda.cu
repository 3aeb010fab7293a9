// SPDX-License-Identifier: Apache-2.0
// One cluster of blocks for each row (kernels/cuda/logit_rows.cuh): a pass for the maxima, one for the sums, and after
// the blocks of the cluster have exchanged theirs, one that writes the gradient.
#include "kernels/cuda/logit_rows.cuh"
#include "kernels/kl_divergence/kl_divergence.h"

namespace amalgam::kernels::cuda {
namespace {

namespace cg = cooperative_groups;

struct Arguments {
    std::int64_t vocabulary, slice;
    float temperature, gradient_weight;
    ConstRows student, teacher;
    Rows gradient;  // null: loss only
    float* loss;
};

// Sums of one slice, or of the whole row. Exponents are in units of log 2 and relative to the centres.
struct Sums {
    float student_centre, teacher_centre;
    double student, teacher;  // of 2^exponent
    double product;           // of the teacher's power times the difference of the exponents
};

template <int n, class T>
__device__ void slice_sums(const T* student, const T* teacher, int count, float scale, Sums& sums) {
    float partial[3] = {};
    for (int i = n * int(threadIdx.x); i < count; i += n * logit_threads) {
        float s[n], t[n];
        load<n>(student + i, s);
        load<n>(teacher + i, t);
#pragma unroll
        for (int j = 0; j < n; ++j) {
            const float s_exponent = fmaf(s[j], scale, -sums.student_centre);
            const float t_exponent = fmaf(t[j], scale, -sums.teacher_centre);
            const float t_power = exp2_approximate(t_exponent);
            partial[0] += exp2_approximate(s_exponent);
            partial[1] += t_power;
            // p log p is 0 for p = 0, whatever the logits: both may be -infinity.
            partial[2] += t_power == 0.0F ? 0.0F : t_power * (t_exponent - s_exponent);
        }
    }
    double total[3];
    block_sum(partial, total);
    sums.student = total[0];
    sums.teacher = total[1];
    sums.product = total[2];
}

// The sums of the row from those of all slices; the first warp calls it, and a lane takes a slice.
__device__ Sums joined(cg::cluster_group& cluster, Sums* of_slice) {
    const unsigned lane = threadIdx.x;
    Sums part{-INFINITY, -INFINITY, 0, 0, 0};
    if (lane < cluster.num_blocks()) part = *cluster.map_shared_rank(of_slice, lane);
    // A slice of nothing but -infinity has centre 0 and must not raise the row's.
    const bool has_student = part.student != 0.0, has_teacher = part.teacher != 0.0;
    Sums row;
    row.student_centre = warp_maximum(has_student ? part.student_centre : -INFINITY);
    row.teacher_centre = warp_maximum(has_teacher ? part.teacher_centre : -INFINITY);
    const double student_factor = has_student ? exp2_approximate(part.student_centre - row.student_centre) : 0.0F;
    const double teacher_factor = has_teacher ? exp2_approximate(part.teacher_centre - row.teacher_centre) : 0.0F;
    const double shift = (static_cast<double>(part.teacher_centre) - row.teacher_centre) -
                         (static_cast<double>(part.student_centre) - row.student_centre);
    row.student = warp_sum(part.student * student_factor);
    row.teacher = warp_sum(part.teacher * teacher_factor);
    row.product = warp_sum(has_teacher ? (part.product + part.teacher * shift) * teacher_factor : 0.0);
    return row;
}

__device__ float loss_of(const Sums& row, double temperature) {
    const double loss = row.product / row.teacher + log2(row.student) - log2(row.teacher);
    return static_cast<float>(temperature * temperature * ln_2 * loss);
}

template <int n, class T>
__device__ void write_gradient(const T* student, const T* teacher, T* gradient, int count, float scale, const Sums& row,
                               double weight) {
    // Scaled to the teacher's sum first, so that equal rows cancel exactly.
    const float ratio = static_cast<float>(row.teacher / row.student);
    const float factor = static_cast<float>(weight / row.teacher);
    for (int i = n * int(threadIdx.x); i < count; i += n * logit_threads) {
        float s[n], t[n];
        load<n>(student + i, s);
        load<n>(teacher + i, t);
#pragma unroll
        for (int j = 0; j < n; ++j) {
            const float s_power = exp2_approximate(fmaf(s[j], scale, -row.student_centre));
            const float t_power = exp2_approximate(fmaf(t[j], scale, -row.teacher_centre));
            s[j] = fmaf(s_power, ratio, -t_power) * factor;
        }
        store<n>(gradient + i, s);
    }
}

template <class T, bool staged>
__global__ void __launch_bounds__(logit_threads) rows_kernel(Arguments a) {
    constexpr int n = staged ? vector_length<T> : 1;
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ std::uint64_t barriers[logit_pieces];
    __shared__ Sums of_slice, of_row;
    cg::cluster_group cluster = cg::this_cluster();
    const std::int64_t row = blockIdx.x / cluster.num_blocks();
    const std::int64_t first = cluster.block_rank() * a.slice;
    const int count = static_cast<int>(min(a.slice, a.vocabulary - first));
    const T* const rows[2] = {row_of<T>(a.student, row) + first, row_of<T>(a.teacher, row) + first};
    const T *student = rows[0], *teacher = rows[1];
    const float scale = log2_e / a.temperature;

    float largest[2] = {-INFINITY, -INFINITY};
    if constexpr (staged) {
        const StagedSlice<T, 2> slice(memory, barriers, rows, static_cast<int>(a.slice), count);
        student = slice.logits(0);
        teacher = slice.logits(1);
        for (int p = 0; p < logit_pieces; ++p) {
            slice.wait(p);
            largest[0] = largest_of<n>(student, slice.begin(p), slice.end(p), largest[0]);
            largest[1] = largest_of<n>(teacher, slice.begin(p), slice.end(p), largest[1]);
        }
    } else {
        largest[0] = largest_of<n>(student, 0, count, largest[0]);
        largest[1] = largest_of<n>(teacher, 0, count, largest[1]);
    }
    block_maximum(largest);

    Sums sums{centre_of(largest[0], scale), centre_of(largest[1], scale), 0, 0, 0};
    slice_sums<n>(student, teacher, count, scale, sums);
    if (threadIdx.x == 0) of_slice = sums;
    cluster.sync();
    if (threadIdx.x < 32) {
        const Sums sums_of_row = joined(cluster, &of_slice);
        if (threadIdx.x == 0) {
            of_row = sums_of_row;
            if (cluster.block_rank() == 0) a.loss[row] = loss_of(sums_of_row, a.temperature);
        }
    }
    __syncthreads();
    cluster.barrier_arrive();  // this block reads no other's memory any more
    if (a.gradient.data != nullptr) {
        write_gradient<n>(student, teacher, row_of<T>(a.gradient, row) + first, count, scale, of_row,
                          static_cast<double>(a.temperature) * a.gradient_weight);
    }
    cluster.barrier_wait();
}

void run(ElementType type, std::int64_t rows, const Arguments& given, cudaStream_t stream) {
    with_element_type(type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        Arguments arguments = given;
        const bool staged = given.vocabulary % 8 == 0 && aligned(given.student, type) && aligned(given.teacher, type);
        const Slicing slicing = staged ? slicing_of(given.vocabulary, 2, sizeof(T)) : Slicing{1, given.vocabulary, 0};
        arguments.slice = slicing.columns;
        launch_rows(slicing.bytes > 0 ? rows_kernel<T, true> : rows_kernel<T, false>, arguments, rows, slicing, stream,
                    "kl_divergence");
    });
}

}  // namespace

void kl_divergence(const KlDivergence& a, Stream stream) {
    run(a.type, a.rows, {a.vocabulary, 0, a.temperature, 0, a.student, a.teacher, {}, a.loss}, stream);
}

void kl_divergence_with_gradient(const KlDivergenceGradient& a, Stream stream) {
    run(a.type, a.rows, {a.vocabulary, 0, a.temperature, a.gradient_weight, a.student, a.teacher, a.student, a.loss},
        stream);
}

}  // namespace amalgam::kernels::cuda
