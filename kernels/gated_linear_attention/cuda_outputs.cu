// SPDX-License-Identifier: Apache-2.0
// O = scale (exp(G) Q) S + A V,  A_ij = scale sum_c Q_ic K_jc exp(G_ic - G_jc) for j <= i.
#include "kernels/gated_linear_attention/cuda_chunk.cuh"

namespace amalgam::kernels::linear_attention {
namespace {

template <int dim>
struct OutputShared {
    static constexpr int tiles = dim / 64;
    char q[tiles][tile_bytes], k[tiles][tile_bytes], v[tiles][tile_bytes];
    char gate[tiles][tile_bytes];  ///< then scale exp(G) Q
    union {
        char S[tiles][tiles][tile_bytes];
        float G[tiles][4096];  ///< of a steep chunk, before S
    };
    PartSums sums[tiles];
    uint64_t loaded;
};

template <int dim>
__global__ void __launch_bounds__(2 * dim, dim == 64 ? 4 : 1) outputs_kernel(const __grid_constant__ ForwardCall call) {
    constexpr int tiles = dim / 64, state_bytes = tiles * tiles * tile_bytes;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<OutputShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const ChunkPlace chunk(call);
    const Column<parts> at(thread);
    const Place place{thread / 32 * 16 + thread % 32 / 4, thread % 32};

    const auto load_states = [&] {
        barrier_arrive_expect(shared_address(&shared.loaded), state_bytes);
        bulk_load(shared_address(shared.S), call.states + chunk.n * state_bytes, state_bytes,
                  shared_address(&shared.loaded));
    };
    if (threadIdx.x == 0) {
        barrier_init(shared_address(&shared.loaded), 1);
        publish_barriers();
        load_states();
    }
    chunk.load<dim>(shared.gate[0], call.gate, call.time);
    chunk.load<dim>(shared.q[0], call.q, call.time);
    chunk.load<dim>(shared.k[0], call.k, call.time);
    chunk.load<dim>(shared.v[0], call.v, call.time);
    copies_commit();
    copies_wait<0>();
    __syncthreads();

    const ChunkDecays decays(shared.gate[group], at, chunk.tokens, call.gate_factor, shared.sums[group]);
    if (decays.is_steep) {
        barrier_wait(shared_address(&shared.loaded), 0);  // G takes the place of S
        __syncthreads();
        write_decays(shared.G[group], decays, at);
    }
#pragma unroll
    for (int i = 0; i < Column<parts>::rows; ++i) {
        const float2 G = decays.G[i], m = {G.x - decays.middle.x, G.y - decays.middle.y};
        uint32_t &q = at.in(shared.q[group], i), &k = at.in(shared.k[group], i);
        at.in(shared.gate[group], i) =
            pack(low_half(q) * call.scale * exp2_fast(G.x), high_half(q) * call.scale * exp2_fast(G.y));
        if (!decays.is_steep) divide_at_middle(q, k, m);
    }
    publish_shared();
    __syncthreads();

    float A[32];
    if (decays.is_steep)
        steep_pairs<dim, false>(A, shared.q[0], shared.k[0], shared.G[0], place);
    else
        pair_products<dim>(A, shared.q, shared.k);
    mask(A, call.scale, place, [](int row, int column) { return column <= row; });
    if (decays.is_steep) {
        publish_shared();
        __syncthreads();
        if (threadIdx.x == 0) load_states();
    }
    barrier_wait(shared_address(&shared.loaded), decays.is_steep ? 1 : 0);

    Left a[4];
    make_left(a, A);
#pragma unroll
    for (int i = 0; i < 4; ++i) hold(a[i]);
    float O[32];
    hold(O);
    products_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) product<Lie::as_rows>(O, a[i], shared_address(shared.v[group]), i, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(O, shared_address(shared.gate[i / 4]),
                                            shared_address(shared.S[i / 4][group]), i % 4);
    products_commit();
    products_wait<0>();
    hold(O);
    named_barrier(1 + group, 128);  // no warp of the group reads its tile of V any more
#pragma unroll
    for (int i = 0; i < 4; ++i) store_rows(shared_address(shared.v[group]), i, left_operand(O, i));
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = thread / 32 * 16 + 4 * i + thread % 32 / 8, piece = thread % 8;
        if (row >= chunk.tokens) continue;
        __nv_bfloat16* target =
            call.o.data + (chunk.start + chunk.first + row) * call.o.stride + chunk.head * dim + 64 * group + piece * 8;
        *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(shared.v[group] + tile_offset(row, piece));
    }
}

}  // namespace

template <int dim>
void launch_outputs(const ForwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(OutputShared<dim>);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(outputs_kernel<dim>, bytes, "gated linear attention on CUDA");
    outputs_kernel<dim><<<dim3(call.chunks, call.chains), 2 * dim, bytes, stream>>>(call);
}

template void launch_outputs<64>(const ForwardCall&, cudaStream_t);
template void launch_outputs<128>(const ForwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::linear_attention
