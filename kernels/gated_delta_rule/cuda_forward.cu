// SPDX-License-Identifier: Apache-2.0
// The chain of states. One block takes one sequence and head (or some of its columns of V: they are independent)
// through all chunks. Each state warpgroup keeps 64 columns of the state in registers as S^T, 64 x dim, and computes
// all of its results transposed, so that every result is the left operand of the next product without leaving the
// registers:
//     W^T = V^T - eg (S^T K^T),  V'^T = W^T Ag^T,  O^T = eg (S^T Q^T) + V'^T Pg^T,  S^T <- e^G_last S^T + (er V')^T K
// The auxiliary warpgroup loads tiles and works out Ag = Gam R b and Pg = scale Gam Q K^T one chunk ahead. q and k are
// normalised by factors per row that go into eg, er, Ag and Pg.
#include <algorithm>

#include "kernels/gated_delta_rule/cuda_stage.cuh"

namespace amalgam::kernels {
namespace {

template <int dim, int groups, int stages>
struct ForwardShared {
    Stage<dim, groups> stage[stages];
    char state[groups][dim / 64][tile_bytes];
    Factors factors[stages];
    uint64_t full[stages], empty[stages];
};

/// 64 tokens of 64 columns from a tile to o.
__device__ void store_output(const CudaForwardCall& call, const char* tile, int first, int column, int thread) {
    const int64_t start = int64_t(blockIdx.x / call.heads) * call.time;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int at = i * 128 + thread, row = at / 8, piece = at % 8;
        if (first + row < call.time)
            *reinterpret_cast<uint4*>(call.o.data + (start + first + row) * call.o.stride + column + piece * 8) =
                *reinterpret_cast<const uint4*>(tile + tile_offset(row, piece));
    }
}

template <int dim, int groups, int stages>
__global__ void __launch_bounds__(128 * (groups + 1), dim == 64 ? 2 : 1)
    forward_kernel(const __grid_constant__ CudaForwardCall call) {
    constexpr int key_tiles = dim / 64;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ForwardShared<dim, groups, stages>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const int first_value = blockIdx.y * groups * 64;

    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; ++i) {
            barrier_init(shared_address(&shared.full[i]), 128);
            barrier_init(shared_address(&shared.empty[i]), 128 * groups);
        }
    }
    __syncthreads();

    if (group == groups) {
        Registers<dim, groups>::decrease();
#pragma unroll
        for (int i = 0; i < stages - 1; ++i)
            load_stage(call, call.v, shared.stage[i], shared.factors[i], i, first_value, thread);
        for (int chunk = 0; chunk < call.chunks; ++chunk) {
            const int at = chunk % stages;
            copies_wait<stages - 2>();
            prepare_stage(call, shared.stage[at], shared.factors[at], chunk,
                          call.saved.states != nullptr && blockIdx.y == 0, thread);
            barrier_arrive(shared_address(&shared.full[at]));
            const int ahead = chunk + stages - 1, next = ahead % stages;
            if (ahead >= stages) barrier_wait(shared_address(&shared.empty[next]), (ahead / stages - 1) & 1);
            load_stage(call, call.v, shared.stage[next], shared.factors[next], ahead, first_value, thread);
        }
        return;
    }

    Registers<dim, groups>::increase();
    const int value = first_value + 64 * group;  // first of this group's columns of V
    const int head = blockIdx.x % call.heads;
    float S[key_tiles][32];
    const int64_t state_base = (int64_t(blockIdx.x) * dim) * dim + value + 16 * warp + lane / 4;
#pragma unroll
    for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int key = 64 * t + i / 4 * 8 + lane % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
            S[t][i] = call.initial_state ? call.initial_state[state_base + int64_t(key) * dim + row] : 0.0F;
        }
    }

    for (int chunk = 0; chunk < call.chunks; ++chunk) {
        const int at = chunk % stages;
        auto& stage = shared.stage[at];
        const Factors& factors = shared.factors[at];
        const uint32_t k = shared_address(stage.k), q = shared_address(stage.q), v = shared_address(stage.v[group]);

        Left state[4 * key_tiles];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) state[i] = left_operand(S[i / 4], i % 4);
        barrier_wait(shared_address(&shared.full[at]), chunk / stages & 1);

        float W[32], O[32];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) hold(state[i]);
        hold(W);
        hold(O);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(W, state[i], k + i / 4 * tile_bytes, i % 4, i > 0);
        products_commit();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(O, state[i], q + i / 4 * tile_bytes, i % 4, i > 0);
        products_commit();

        if (call.saved.states != nullptr) {
            const uint32_t staged = shared_address(shared.state[group]);
            if (thread == 0) bulk_stores_read();
            named_barrier(state_barrier + group, 128);
#pragma unroll
            for (int i = 0; i < 4 * key_tiles; ++i) store_rows(staged + i / 4 * tile_bytes, i % 4, state[i]);
            publish_shared();
            named_barrier(state_barrier + group, 128);
            if (thread == 0)
                bulk_store(call.saved.states + ((int64_t(blockIdx.x) * call.chunks + chunk) * (dim / 64) + value / 64) *
                                                   (key_tiles * tile_bytes),
                           staged, key_tiles * tile_bytes);
        }

        Left w[4];
        products_wait<1>();
        hold(W);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Left vt = load_columns(v, i);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 f = AMALGAM_FACTOR(factors.state_k, 2 * i + j);
                float* x = &W[8 * i + 4 * j];
                x[0] = low_half(vt.x[2 * j]) - f.x * x[0];
                x[1] = high_half(vt.x[2 * j]) - f.y * x[1];
                x[2] = low_half(vt.x[2 * j + 1]) - f.x * x[2];
                x[3] = high_half(vt.x[2 * j + 1]) - f.y * x[3];
            }
            w[i] = left_operand(W, i);
        }
        float V[32];
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(w[i]);
        hold(V);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_columns>(V, w[i], shared_address(stage.Ag), i, i > 0);
        products_commit();
        const float decay = exp2_fast(factors.scalars.log_decay[63]);
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 32; ++i) S[t][i] *= decay;
        }
        products_wait<0>();
        hold(V);
        hold(O);

        Left kept[4], update[4];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 fq = AMALGAM_FACTOR(factors.state_q, i);
            O[4 * i] *= fq.x, O[4 * i + 1] *= fq.y, O[4 * i + 2] *= fq.x, O[4 * i + 3] *= fq.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) kept[i] = left_operand(V, i);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 fu = AMALGAM_FACTOR(factors.update, i);
            V[4 * i] *= fu.x, V[4 * i + 1] *= fu.y, V[4 * i + 2] *= fu.x, V[4 * i + 3] *= fu.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            update[i] = left_operand(V, i);
            hold(update[i]);
            hold(kept[i]);
        }
        hold(O);
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], update[i], k + t * tile_bytes, i);
        }
        products_commit();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_columns>(O, kept[i], shared_address(stage.Pg), i);
        products_commit();
        products_wait<0>();
        hold(O);
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);

            // The output takes the place of this warp's columns of V.
#pragma unroll
        for (int i = 0; i < 4; ++i) store_columns(v, i, left_operand(O, i));
        named_barrier(state_barrier + group, 128);
        store_output(call, stage.v[group], chunk * chunk_tokens, head * dim + value, thread);
        barrier_arrive(shared_address(&shared.empty[at]));
    }
    if (thread == 0) bulk_stores_complete();

    if (call.final_state) {
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int key = 64 * t + i / 4 * 8 + lane % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
                call.final_state[state_base + int64_t(key) * dim + row] = S[t][i];
            }
        }
    }
}

template <int dim, int groups, int stages>
void launch(const CudaForwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(ForwardShared<dim, groups, stages>);
    static const cudaError_t set =
        cudaFuncSetAttribute(forward_kernel<dim, groups, stages>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    (void)set;
    forward_kernel<dim, groups, stages>
        <<<dim3(call.sequences_heads, dim / 64 / groups), 128 * (groups + 1), bytes, stream>>>(call);
}

}  // namespace

template <>
void launch_forward<64>(const CudaForwardCall& call, int, cudaStream_t stream) {
    launch<64, 1, 2>(call, stream);
}
template <>
void launch_forward<128>(const CudaForwardCall& call, int multiprocessors, cudaStream_t stream) {
    // Few heads: half of the columns of V a block, so that more multiprocessors have work.
    if (call.sequences_heads * 4 <= multiprocessors * 3)
        launch<128, 1, 2>(call, stream);
    else
        launch<128, 2, 2>(call, stream);
}

}  // namespace amalgam::kernels
