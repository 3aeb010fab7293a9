// SPDX-License-Identifier: Apache-2.0
// The part of the backward pass that needs no chain. With dS the gradient of the state at the chunk's end, A as in
// cuda_outputs.cu and dA_ij = scale dO_i.V_j for j <= i:
//     dV = A^T dO + (exp(G_last - G) K) dS
//     X = scale exp(G_mid) (dO S^T) + dA Km,    dQ = exp(G - G_mid) X
//     Y = exp(G_last - G_mid) (V dS^T) + dA^T Qm,  dK = exp(G_mid - G) Y
//     dg_t = sum_{i >= t} (Qm X - Km Y)_i + exp(G_last) sum_v(S dS) + sum_i(Km_i exp(G_last - G_mid) (V dS^T)_i)
// where the last two terms are what the state at the chunk's end owes to all decays before it. In a steep chunk X and Y
// are dQ and dK themselves, and Qm and Km are Q and K.
#include "kernels/gated_linear_attention/cuda_chunk.cuh"

namespace amalgam::kernels::linear_attention {
namespace {

template <int dim>
struct GradientShared {
    static constexpr int tiles = dim / 64;
    char q[tiles][tile_bytes];  ///< then Qm, then X
    char k[tiles][tile_bytes];  ///< then Km, then Y
    char v[tiles][tile_bytes];  ///< then dV
    char dO[tiles][tile_bytes];
    char gate[tiles][tile_bytes];  ///< then exp(G_last - G) K; of a steep chunk then dA, in the first
    char S[tiles][tiles][tile_bytes], dS[tiles][tiles][tile_bytes];
    float along[tiles][4096];  ///< G of a steep chunk, then Qm X - Km Y
    PartSums sums[tiles];
    float state_columns[tiles][4][64];  ///< sums over a warp's rows of Km_i exp(G_last - G_mid) (V dS^T)_i
    float to_state_q[tiles][64];        ///< scale exp(G_mid); of a steep chunk scale
    float to_state_k[tiles][64];        ///< exp(G_last - G_mid); of a steep chunk G_last
    float last[tiles][64];              ///< exp(G_last) sum_v(S dS)
    uint64_t loaded;
};

/// x += left Y, Y one tile of 64 tokens.
__device__ void add_pairs(float (&x)[32], Left (&left)[4], const char* Y) {
#pragma unroll
    for (int i = 0; i < 4; ++i) hold(left[i]);
    hold(x);
    products_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) product<Lie::as_rows>(x, left[i], shared_address(Y), i);
    products_commit();
    products_wait<0>();
    hold(x);
}

/// sum += sign * x * (element of the tile), for the whole fragment.
__device__ void add_times(float (&sum)[32], float sign, const float (&x)[32], const char* tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Left y = load_rows(shared_address(tile), i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int e = 8 * i + 2 * j;
            sum[e] += sign * x[e] * low_half(y.x[j]);
            sum[e + 1] += sign * x[e + 1] * high_half(y.x[j]);
        }
    }
}

/// What pairs of tokens in a steep chunk give dQ (`of_queries`) or dK, for this thread's elements of 64 channels. `dA`
/// is a tile of bf16.
template <bool of_queries>
__device__ void add_steep_pairs(float (&x)[32], const char* dA, const char* other, const float* G, const Place& at) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        const int row = at.row(i / 2 % 2), channel = at.column(i / 4) + i % 2;
        const float own = float_at(G, row, channel);
        float sum = 0;
        for (int t = of_queries ? 0 : row; t < (of_queries ? row + 1 : chunk_tokens); ++t) {
            const float difference = of_queries ? own - float_at(G, t, channel) : float_at(G, t, channel) - own;
            sum += (of_queries ? bf16_at(dA, row, t) : bf16_at(dA, t, row)) * bf16_at(other, t, channel) *
                   exp2_fast(difference);
        }
        x[i] += sum;
    }
}

/// Blocks that a multiprocessor holds.
template <int dim>
constexpr int blocks_at_once = dim == 64 ? 3 : 1;

template <int dim>
__global__ void __launch_bounds__(2 * dim, blocks_at_once<dim>)
    gradients_kernel(const __grid_constant__ BackwardCall backward) {
    const ForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, state_bytes = tiles * tiles * tile_bytes;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<GradientShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32;
    const ChunkPlace chunk(call);
    const Column<parts> at(thread);
    const Place place{warp * 16 + thread % 32 / 4, thread % 32};

    if (threadIdx.x == 0) {
        const uint32_t loaded = shared_address(&shared.loaded);
        barrier_init(loaded, 1);
        publish_barriers();
        barrier_arrive_expect(loaded, 2 * state_bytes);
        bulk_load(shared_address(shared.S), call.states + chunk.n * state_bytes, state_bytes, loaded);
        bulk_load(shared_address(shared.dS), backward.state_gradients + chunk.n * state_bytes, state_bytes, loaded);
    }
    chunk.load<dim>(shared.gate[0], call.gate, call.time);
    chunk.load<dim>(shared.q[0], call.q, call.time);
    chunk.load<dim>(shared.k[0], call.k, call.time);
    chunk.load<dim>(shared.v[0], call.v, call.time);
    chunk.load<dim>(shared.dO[0], backward.output_gradient, call.time);
    copies_commit();
    copies_wait<0>();
    __syncthreads();

    bool is_steep;
    {
        const ChunkDecays decays(shared.gate[group], at, chunk.tokens, call.gate_factor, shared.sums[group]);
        is_steep = decays.is_steep;
        const float2 middle = is_steep ? float2{0.0F, 0.0F} : decays.middle;
        if (is_steep) write_decays(shared.along[group], decays, at);
#pragma unroll
        for (int i = 0; i < Column<parts>::rows; ++i) {
            const float2 G = decays.G[i], m = {G.x - middle.x, G.y - middle.y};
            uint32_t &q = at.in(shared.q[group], i), &k = at.in(shared.k[group], i);
            at.in(shared.gate[group], i) =
                pack(low_half(k) * exp2_fast(decays.last.x - G.x), high_half(k) * exp2_fast(decays.last.y - G.y));
            if (!is_steep) divide_at_middle(q, k, m);
        }
        if (at.part == 0) {
            const int c = 2 * at.pair;
            shared.to_state_q[group][c] = call.scale * exp2_fast(middle.x);
            shared.to_state_q[group][c + 1] = call.scale * exp2_fast(middle.y);
            shared.to_state_k[group][c] = is_steep ? decays.last.x : exp2_fast(decays.last.x - middle.x);
            shared.to_state_k[group][c + 1] = is_steep ? decays.last.y : exp2_fast(decays.last.y - middle.y);
            shared.last[group][c] = exp2_fast(decays.last.x), shared.last[group][c + 1] = exp2_fast(decays.last.y);
        }
    }
    publish_shared();
    __syncthreads();

    // dV, with A^T from Km Qm^T.
    Left dV[4];
    {
        float x[32];
        Left pairs[4];
        if (is_steep)
            steep_pairs<dim, true>(x, shared.q[0], shared.k[0], shared.along[0], place);
        else
            pair_products<dim>(x, shared.k, shared.q);
        mask(x, call.scale, place, [](int row, int column) { return column >= row; });
        make_left(pairs, x);
        barrier_wait(shared_address(&shared.loaded), 0);
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(pairs[i]);
        hold(x);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(x, pairs[i], shared_address(shared.dO[group]), i, i > 0);
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_rows>(x, shared_address(shared.gate[i / 4]),
                                                shared_address(shared.dS[i / 4][group]), i % 4);
        products_commit();
        products_wait<0>();
        hold(x);
        make_left(dV, x);
    }

    // exp(G_last) sum_v(S dS): two threads a key channel, each half of its values.
    {
        const int row = thread / 2;
        float sum = 0;
#pragma unroll
        for (int t = 0; t < tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const uint32_t offset = tile_offset(row, thread % 2 * 4 + i);
                const uint4 x = *reinterpret_cast<const uint4*>(shared.S[group][t] + offset);
                const uint4 y = *reinterpret_cast<const uint4*>(shared.dS[group][t] + offset);
                const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum += low_half(xs[j]) * low_half(ys[j]) + high_half(xs[j]) * high_half(ys[j]);
            }
        }
        sum += __shfl_xor_sync(~0U, sum, 1);
        if (thread % 2 == 0) shared.last[group][row] *= sum;
    }

    Left dA[4], dA_transposed[4];
    {
        float x[32];
        pair_products<dim>(x, shared.dO, shared.v);
        mask(x, call.scale, place, [](int row, int column) { return column <= row; });
        make_left(dA, x);
        pair_products<dim>(x, shared.v, shared.dO);
        mask(x, call.scale, place, [](int row, int column) { return column >= row; });
        make_left(dA_transposed, x);
    }
    if (is_steep) {
        __syncthreads();  // exp(G_last - G) K has been read
        if (group == 0) {
#pragma unroll
            for (int i = 0; i < 4; ++i) store_rows(shared_address(shared.gate[0]), i, dA[i]);
        }
        __syncthreads();
    }

    float along[32];
    Left X[4], Y[4];
    {
        float x[32];
        hold(x);
        products_begin();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_columns>(x, shared_address(shared.dO[i / 4]),
                                                   shared_address(shared.S[group][i / 4]), i % 4, i > 0);
        products_commit();
        products_wait<0>();
        hold(x);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int column = place.column(i / 4) + i % 2;
            x[i] *= shared.to_state_q[group][column];
            if (is_steep) x[i] *= exp2_fast(float_at(shared.along[group], place.row(i / 2 % 2), column));
            along[i] = 0.0F;
        }
        if (is_steep)
            add_steep_pairs<true>(x, shared.gate[0], shared.k[group], shared.along[group], place);
        else
            add_pairs(x, dA, shared.k[group]);
        add_times(along, 1.0F, x, shared.q[group]);
        make_left(X, x);

        hold(x);
        products_begin();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_columns>(x, shared_address(shared.v[i / 4]),
                                                   shared_address(shared.dS[group][i / 4]), i % 4, i > 0);
        products_commit();
        products_wait<0>();
        hold(x);
        float state_part[32], columns[16];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int column = place.column(i / 4) + i % 2;
            const float factor = shared.to_state_k[group][column];
            x[i] *= is_steep ? exp2_fast(factor - float_at(shared.along[group], place.row(i / 2 % 2), column)) : factor;
            state_part[i] = 0.0F;
        }
        add_times(state_part, 1.0F, x, shared.k[group]);
#pragma unroll
        for (int i = 0; i < 16; ++i) columns[i] = state_part[4 * (i / 2) + i % 2] + state_part[4 * (i / 2) + 2 + i % 2];
        write_column_sums(shared.state_columns[group], columns, place, warp);
        if (is_steep)
            add_steep_pairs<false>(x, shared.gate[0], shared.q[group], shared.along[group], place);
        else
            add_pairs(x, dA_transposed, shared.q[group]);
        add_times(along, -1.0F, x, shared.k[group]);
        make_left(Y, x);
    }
    __syncthreads();  // nobody reads the inputs any more
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        store_rows(shared_address(shared.q[group]), i, X[i]);
        store_rows(shared_address(shared.k[group]), i, Y[i]);
        store_rows(shared_address(shared.v[group]), i, dV[i]);
    }
#pragma unroll
    for (int i = 0; i < 32; i += 2)
        *reinterpret_cast<float2*>(shared.along[group] + float_index(place.row(i / 2 % 2), place.column(i / 4))) =
            make_float2(along[i], along[i + 1]);
    named_barrier(1 + group, 128);

    const int64_t token = chunk.start + chunk.first;
    const int column = chunk.head * dim + 64 * group;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = 16 * i + thread / 8, piece = thread % 8;
        if (row >= chunk.tokens) continue;
        *reinterpret_cast<uint4*>(backward.v.data + (token + row) * backward.v.stride + column + piece * 8) =
            *reinterpret_cast<const uint4*>(shared.v[group] + tile_offset(row, piece));
    }

    // The elements again by columns. The gates come a second time: 16 tokens a thread are too many to keep.
    constexpr int rows = Column<parts>::rows;
    uint32_t gates[rows];
#pragma unroll
    for (int i = 0; i < rows; ++i) {
        const int row = at.row(i);
        gates[i] = row < chunk.tokens ? *reinterpret_cast<const uint32_t*>(
                                            call.gate.data + (token + row) * call.gate.stride + column + 2 * at.pair)
                                      : 0;
    }
    float2 suffix[rows], sum = {0.0F, 0.0F};
#pragma unroll
    for (int i = rows - 1; i >= 0; --i) {
        const float2 x = *reinterpret_cast<const float2*>(shared.along[group] + float_index(at.row(i), 2 * at.pair));
        sum.x += x.x, sum.y += x.y;
        suffix[i] = sum;
    }
    // The sums of the parts' log decays are read once more before those of `along` take their place.
    const auto of_part = [&](int p) { return shared.sums[group][p][at.pair]; };
    float2 G = {0.0F, 0.0F};
    if (!is_steep) {
        const float2 before = sum_parts<parts>(of_part, 0, at.part), middle = sum_parts<parts>(of_part, 0, parts / 2);
        G = {before.x - middle.x, before.y - middle.y};
    }
    named_barrier(1 + group, 128);
    shared.sums[group][at.part][at.pair] = sum;
    named_barrier(1 + group, 128);
    float2 rest = sum_parts<parts>(of_part, at.part + 1, parts);
    rest.x += shared.last[group][2 * at.pair], rest.y += shared.last[group][2 * at.pair + 1];
#pragma unroll
    for (int w = 0; w < 4; ++w)
        rest.x += shared.state_columns[group][w][2 * at.pair],
            rest.y += shared.state_columns[group][w][2 * at.pair + 1];
#pragma unroll
    for (int i = 0; i < rows; ++i) {
        const int row = at.row(i);
        if (row >= chunk.tokens) continue;
        const float2 gate = {low_half(gates[i]), high_half(gates[i])};
        if (!is_steep) G.x += log_decay(gate.x, call.gate_factor), G.y += log_decay(gate.y, call.gate_factor);
        const uint32_t x = at.in(shared.q[group], i), y = at.in(shared.k[group], i);
        const auto write = [&](const MutableDeviceRows& out, float low, float high) {
            *reinterpret_cast<uint32_t*>(out.data + (token + row) * out.stride + column + 2 * at.pair) =
                pack(low, high);
        };
        write(backward.q, low_half(x) * exp2_fast(G.x), high_half(x) * exp2_fast(G.y));
        write(backward.k, low_half(y) * exp2_fast(-G.x), high_half(y) * exp2_fast(-G.y));
        // d log(sigmoid(x)) = sigmoid(-x)
        write(backward.gate, (suffix[i].x + rest.x) * call.gate_factor / (1.0F + __expf(gate.x)),
              (suffix[i].y + rest.y) * call.gate_factor / (1.0F + __expf(gate.y)));
    }
}

}  // namespace

template <int dim>
void launch_gradients(const BackwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(GradientShared<dim>);
    static_assert(blocks_at_once<dim> * (bytes + 1024) <= 233472);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(gradients_kernel<dim>, bytes, "gated linear attention on CUDA");
    gradients_kernel<dim><<<dim3(call.forward.chunks, call.forward.chains), 2 * dim, bytes, stream>>>(call);
}

template void launch_gradients<64>(const BackwardCall&, cudaStream_t);
template void launch_gradients<128>(const BackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::linear_attention
