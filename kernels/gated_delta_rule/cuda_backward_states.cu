// SPDX-License-Identifier: Apache-2.0
// The chain of state gradients: the mirror image of cuda_forward.cu, from the last chunk to the first. With dS the
// gradient of the state at the chunk's end, in registers as dS^T:
//     dV'^T = dO^T Pg + er (dS^T K^T),  dW^T = dV'^T Ag,
//     dS^T <- e^G_last dS^T + (scale eg dO)^T Q - (eg dW)^T K
#include "kernels/gated_delta_rule/cuda_stage.cuh"

namespace amalgam::kernels {
namespace {

template <int dim, int groups, int stages>
struct BackwardShared {
    Stage<dim, groups> stage[stages];
    char state[groups][dim / 64][tile_bytes], value[groups][tile_bytes], error[groups][tile_bytes];
    Factors factors[stages];
    uint64_t full[stages], empty[stages];
};

template <int dim, int groups, int stages>
__global__ void __launch_bounds__(128 * (groups + 1), dim == 64 ? 2 : 1)
    backward_states_kernel(const __grid_constant__ CudaBackwardCall backward) {
    const CudaForwardCall& call = backward.forward;
    constexpr int key_tiles = dim / 64;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<BackwardShared<dim, groups, stages>*>(memory);
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
        const auto load = [&](int i) {
            load_stage(call, backward.output_gradient, shared.stage[i % stages], shared.factors[i % stages],
                       call.chunks - 1 - i, first_value, thread);
        };
        for (int i = 0; i < stages - 1; ++i) load(i);
        for (int i = 0; i < call.chunks; ++i) {
            const int at = i % stages;
            copies_wait<stages - 2>();
            prepare_stage(call, shared.stage[at], shared.factors[at], 0, false, thread);
            barrier_arrive(shared_address(&shared.full[at]));
            const int ahead = i + stages - 1;
            if (ahead >= stages) barrier_wait(shared_address(&shared.empty[ahead % stages]), (ahead / stages - 1) & 1);
            load(ahead);
        }
        return;
    }

    Registers<dim, groups>::increase();
    const int value = first_value + 64 * group;  // first of this group's columns of V
    float S[key_tiles][32];
    const int64_t state_base = int64_t(blockIdx.x) * dim * dim + value + 16 * warp + lane / 4;
#pragma unroll
    for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int key = 64 * t + i / 4 * 8 + lane % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
            S[t][i] = backward.final_state_gradient
                          ? backward.final_state_gradient[state_base + int64_t(key) * dim + row]
                          : 0.0F;
        }
    }
    const uint32_t staged_state = shared_address(shared.state[group]);
    const uint32_t staged_value = shared_address(shared.value[group]);
    const uint32_t staged_error = shared_address(shared.error[group]);

    for (int step = 0; step < call.chunks; ++step) {
        const int at = step % stages, chunk = call.chunks - 1 - step;
        auto& stage = shared.stage[at];
        const Factors& factors = shared.factors[at];
        const uint32_t k = shared_address(stage.k), q = shared_address(stage.q), dO = shared_address(stage.v[group]);

        Left state[4 * key_tiles], dOt[4];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) state[i] = left_operand(S[i / 4], i % 4);
        barrier_wait(shared_address(&shared.full[at]), step / stages & 1);
#pragma unroll
        for (int i = 0; i < 4; ++i) dOt[i] = load_columns(dO, i);

        float T[32], X[32];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) hold(state[i]);
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(dOt[i]);
        hold(T);
        hold(X);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(T, state[i], k + i / 4 * tile_bytes, i % 4, i > 0);
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(X, dOt[i], shared_address(stage.Pg), i, i > 0);
        products_commit();

        if (thread == 0) bulk_stores_read();
        named_barrier(state_barrier + group, 128);
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) store_rows(staged_state + i / 4 * tile_bytes, i % 4, state[i]);

        products_wait<0>();
        hold(T);
        hold(X);
        Left value_gradient[4];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 f = AMALGAM_FACTOR(factors.update, i);
            X[4 * i] += f.x * T[4 * i], X[4 * i + 1] += f.y * T[4 * i + 1];
            X[4 * i + 2] += f.x * T[4 * i + 2], X[4 * i + 3] += f.y * T[4 * i + 3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) value_gradient[i] = left_operand(X, i);
        float W[32];
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(value_gradient[i]);
        hold(W);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(W, value_gradient[i], shared_address(stage.Ag), i, i > 0);
        products_commit();

        const float decay = exp2_fast(factors.scalars.log_decay[63]);
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 32; ++i) S[t][i] *= decay;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            store_columns(staged_value, i, value_gradient[i]);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 f = AMALGAM_FACTOR(factors.state_q, 2 * i + j);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    uint32_t& x = dOt[i].x[2 * j + r];
                    x = pack(low_half(x) * f.x, high_half(x) * f.y);
                }
            }
            hold(dOt[i]);
        }
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], dOt[i], q + t * tile_bytes, i);
        }
        products_commit();
        products_wait<1>();
        hold(W);
        Left error[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) store_columns(staged_error, i, left_operand(W, i));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 f = AMALGAM_FACTOR(factors.state_k, i);
            W[4 * i] *= -f.x, W[4 * i + 1] *= -f.y, W[4 * i + 2] *= -f.x, W[4 * i + 3] *= -f.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            error[i] = left_operand(W, i);
            hold(error[i]);
        }
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], error[i], k + t * tile_bytes, i);
        }
        products_commit();
        publish_shared();
        named_barrier(state_barrier + group, 128);
        if (thread == 0) {
            const int64_t n = (int64_t(blockIdx.x) * call.chunks + chunk) * key_tiles + value / 64;
            bulk_store(backward.state_gradients + n * (key_tiles * tile_bytes), staged_state, key_tiles * tile_bytes);
            bulk_store(backward.value_gradients + n * tile_bytes, staged_value, tile_bytes);
            bulk_store(backward.error_gradients + n * tile_bytes, staged_error, tile_bytes);
        }
        products_wait<0>();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        barrier_arrive(shared_address(&shared.empty[at]));
    }
    if (thread == 0) bulk_stores_complete();

    if (backward.initial_state) {
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int key = 64 * t + i / 4 * 8 + lane % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
                backward.initial_state[state_base + int64_t(key) * dim + row] = S[t][i];
            }
        }
    }
}

template <int dim, int groups, int stages>
void launch(const CudaBackwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(BackwardShared<dim, groups, stages>);
    static const cudaError_t set = cudaFuncSetAttribute(backward_states_kernel<dim, groups, stages>,
                                                        cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    (void)set;
    backward_states_kernel<dim, groups, stages>
        <<<dim3(call.forward.sequences_heads, dim / 64 / groups), 128 * (groups + 1), bytes, stream>>>(call);
}

}  // namespace

template <>
void launch_backward_states<64>(const CudaBackwardCall& call, int, cudaStream_t stream) {
    launch<64, 1, 2>(call, stream);
}
template <>
void launch_backward_states<128>(const CudaBackwardCall& call, int multiprocessors, cudaStream_t stream) {
    if (call.forward.sequences_heads * 4 <= multiprocessors * 3)
        launch<128, 1, 2>(call, stream);
    else
        launch<128, 2, 2>(call, stream);
}

}  // namespace amalgam::kernels
