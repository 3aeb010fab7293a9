// SPDX-License-Identifier: Apache-2.0
// Hopper's instructions as functions: warpgroup matrix products, asynchronous copies, barriers in shared memory, and
// the tile layout that all of them share.
//
// A tile is 64 rows of 64 bf16 (8 KiB, aligned to 1 KiB); the 16-byte piece p of row r lies at piece p ^ (r % 8) (the
// hardware's 128-byte swizzle, free of bank conflicts by rows and by columns). A matrix of 64 rows and 128 columns is
// two tiles, one after the other.
//
// Fragments: warp w of a warpgroup holds rows 16 w .. 16 w + 15 of a 64 x 64 result. With g = lane / 4, q = lane % 4,
// element [4 n + 2 r + c] of a thread's 32 is row 16 w + 8 r + g, column 8 n + 2 q + c. The left operand of a product
// over 16 columns (`Left`) is four registers of two bf16 with the same rows and columns.
//
// With AMALGAM_EMULATE_WGMMA the products use the warp-level instructions of older GPUs instead: slower, and a check of
// the descriptors.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace amalgam::kernels::hopper {

constexpr int tile_bytes = 8192;

__device__ inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// Byte offset inside a tile of the 16-byte piece `piece` (0..7) of row `row`.
__device__ inline uint32_t tile_offset(int row, int piece) {
    return static_cast<uint32_t>(row * 128 + ((piece ^ (row & 7)) << 4));
}

struct Left {
    uint32_t x[4];
};

__device__ inline uint32_t pack(float low, float high) {
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}
__device__ inline float low_half(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
__device__ inline float high_half(uint32_t pair) {
    return __uint_as_float(pair & 0xFFFF0000U);
}

/// The 16 columns from 16 k of a 64-column result, rounded to bf16, as the left operand of the next product.
__device__ inline Left left_operand(const float (&d)[32], int k) {
    return {{pack(d[8 * k], d[8 * k + 1]), pack(d[8 * k + 2], d[8 * k + 3]), pack(d[8 * k + 4], d[8 * k + 5]),
             pack(d[8 * k + 6], d[8 * k + 7])}};
}

// --- 8x8 matrices between registers and shared memory ---------------------------------------------------------------

__device__ inline void load_matrices(uint32_t (&x)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&x)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void store_matrices(uint32_t address, const uint32_t (&x)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(x[0]), "r"(x[1]),
                 "r"(x[2]), "r"(x[3])
                 : "memory");
}
__device__ inline void store_matrices_transposed(uint32_t address, const uint32_t (&x)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(x[0]),
                 "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}

/// Address for load_matrices/store_matrices of columns 16 k .. 16 k + 15 of this warp's 16 rows of `tile`, in the order
/// of Left.
__device__ inline uint32_t rows_address(uint32_t tile, int k) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return tile + tile_offset(16 * warp + lane % 16, 2 * k + lane / 16);
}
/// The same for the transposed functions: this warp's rows are columns 16 w .. of `tile`, columns 16 k .. its rows.
__device__ inline uint32_t columns_address(uint32_t tile, int k) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return tile + tile_offset(16 * k + lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2);
}
__device__ inline Left load_rows(uint32_t tile, int k) {
    Left x;
    load_matrices(x.x, rows_address(tile, k));
    return x;
}
__device__ inline Left load_columns(uint32_t tile, int k) {
    Left x;
    load_matrices_transposed(x.x, columns_address(tile, k));
    return x;
}
__device__ inline void store_rows(uint32_t tile, int k, const Left& x) {
    store_matrices(rows_address(tile, k), x.x);
}
__device__ inline void store_columns(uint32_t tile, int k, const Left& x) {
    store_matrices_transposed(columns_address(tile, k), x.x);
}

// --- products -------------------------------------------------------------------------------------------------------

/// d += a b by one warp: a 16 x 16 (as Left), b 16 x 8, row k of it in lanes k % 8 / 2 of each four, d 16 x 8.
__device__ inline void multiply(float (&d)[4], const Left& a, uint32_t low, uint32_t high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(low), "r"(high));
}

/// How an operand lies in its tile. For the right operand of X Y, `as_columns` means that row n of the tile is column n
/// of Y (the product is with the transposed tile) and `as_rows` that row k of the tile is row k of Y. For the left
/// operand `as_rows` means that row m of the tile is row m of X, `as_columns` that it is column m.
enum class Lie { as_rows, as_columns };

#ifndef AMALGAM_EMULATE_WGMMA

/// Keeps the compiler from moving reads and writes of registers across the asynchronous products.
__device__ inline void hold(float (&d)[32]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
__device__ inline void hold(float (&d)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
__device__ inline void hold(Left& a) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a.x[i])::"memory");
}
__device__ inline void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ inline void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// Swizzle of 128 bytes, 1 KiB between groups of eight rows; of what lies `offset` bytes (a multiple of 16) into a
/// tile. The tile's part and the offset's are added apart, so that offsets known at compile time cost one addition
/// each.
__device__ inline uint64_t descriptor(uint32_t tile, int offset) {
    constexpr uint32_t high = (uint32_t(1) << 30) | (1024 >> 4);
    const uint32_t low = ((uint32_t(1) << 16) | tile >> 4) + static_cast<uint32_t>(offset / 16);
    return uint64_t(high) << 32 | low;
}

#define AMALGAM_ACCUMULATORS                                                                                          \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
    "%30,%31}"
#define AMALGAM_ACCUMULATOR_OPERANDS(d)                                                                         \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),  \
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), \
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])

/// d (+)= a Y over the 16 columns from 16 k of X, i.e. the rows from 16 k of Y. Overwrites d when `accumulate` is 0.
template <Lie right>
__device__ inline void product(float (&d)[32], const Left& a, uint32_t right_tile, int k, int accumulate = 1) {
    constexpr int transposed = right == Lie::as_rows;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " AMALGAM_ACCUMULATORS
        ", {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}\n"
        : AMALGAM_ACCUMULATOR_OPERANDS(d)
        : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(descriptor(right_tile, k * (transposed ? 2048 : 32))),
          "r"(accumulate), "n"(transposed));
}

template <Lie left, Lie right>
__device__ inline void product(float (&d)[32], uint32_t left_tile, uint32_t right_tile, int k, int accumulate = 1) {
    constexpr int left_transposed = left == Lie::as_columns, right_transposed = right == Lie::as_rows;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " AMALGAM_ACCUMULATORS
        ", %32, %33, p, 1, 1, %35, %36;\n}\n"
        : AMALGAM_ACCUMULATOR_OPERANDS(d)
        : "l"(descriptor(left_tile, k * (left_transposed ? 2048 : 32))),
          "l"(descriptor(right_tile, k * (right_transposed ? 2048 : 32))), "r"(accumulate), "n"(left_transposed),
          "n"(right_transposed));
}

/// The same for half of the columns of the result, 32 `half` and on: element [4 n + 2 r + c] is column 32 half + 8 n +
/// 2 q + c.
template <Lie left, Lie right>
__device__ inline void product(float (&d)[16], uint32_t left_tile, uint32_t right_tile, int half, int k,
                               int accumulate) {
    constexpr int left_transposed = left == Lie::as_columns, right_transposed = right == Lie::as_rows;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, p, 1, 1, %19, %20;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
          "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
        : "l"(descriptor(left_tile, k * (left_transposed ? 2048 : 32))),
          "l"(descriptor(right_tile, right_transposed ? k * 2048 + half * 64 : k * 32 + half * 4096)), "r"(accumulate),
          "n"(left_transposed), "n"(right_transposed));
}

#else

__device__ inline void hold(float (&)[32]) {}
__device__ inline void hold(float (&)[16]) {}
__device__ inline void hold(Left&) {}
__device__ inline void products_begin() {}
__device__ inline void products_commit() {}
template <int pending>
__device__ inline void products_wait() {}

template <Lie right>
__device__ inline void product(float (&d)[32], const Left& a, uint32_t right_tile, int k, int accumulate = 1) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
        uint32_t b[4];
        if constexpr (right == Lie::as_columns)
            load_matrices(b, right_tile + tile_offset(8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        else
            load_matrices_transposed(b, right_tile + tile_offset(16 * k + lane % 16, n + lane / 16));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float* e = &d[4 * (n + h)];
            if (!accumulate) e[0] = e[1] = e[2] = e[3] = 0.0F;
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                "{%0,%1,%2,%3};"
                : "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
                : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b[2 * h]), "r"(b[2 * h + 1]));
        }
    }
}

template <Lie left, Lie right>
__device__ inline void product(float (&d)[32], uint32_t left_tile, uint32_t right_tile, int k, int accumulate = 1) {
    const Left a = left == Lie::as_rows ? load_rows(left_tile, k) : load_columns(left_tile, k);
    product<right>(d, a, right_tile, k, accumulate);
}

template <Lie left, Lie right>
__device__ inline void product(float (&d)[16], uint32_t left_tile, uint32_t right_tile, int half, int k,
                               int accumulate) {
    float whole[32];
#pragma unroll
    for (int i = 0; i < 16; ++i) whole[16 * half + i] = d[i];
    product<left, right>(whole, left_tile, right_tile, k, accumulate);
#pragma unroll
    for (int i = 0; i < 16; ++i) d[i] = whole[16 * half + i];
}

#endif

// --- copies and barriers --------------------------------------------------------------------------------------------

/// 16 bytes from device memory; zeros where `present` is false (nothing is read then).
__device__ inline void copy_async(uint32_t shared, const void* global, bool present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(present ? 16 : 0)
                 : "memory");
}
/// How long the L2 cache keeps what is copied with it: it goes first, for bytes that are read once, which would only
/// push out what others read again.
__device__ inline uint64_t evict_first_policy() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
/// 16 bytes from device memory; zeros where `present` is false (nothing is read then). policy: evict_first_policy().
__device__ inline void copy_async(uint32_t shared, const void* global, bool present, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared), "l"(global),
                 "r"(present ? 16 : 0), "l"(policy)
                 : "memory");
}
__device__ inline void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending>
__device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// Makes this thread's ordinary writes to shared memory visible to products and bulk copies after the next barrier.
__device__ inline void publish_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Lets the barrier's present phase wait for so many bytes more, without an arrival.
__device__ inline void barrier_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Arrives once this thread's asynchronous copies so far are complete.
__device__ inline void barrier_arrive_after_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
/// Makes initialised barriers visible to the copy engine.
__device__ inline void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, int parity) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "again:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra done;\nbra again;\ndone:\n}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

__device__ inline void bulk_load(uint32_t shared, const void* global, int bytes, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
        "l"(global), "r"(bytes), "r"(barrier)
        : "memory");
}
__device__ inline void bulk_store(void* global, uint32_t shared, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared), "r"(bytes)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Begins to bring `bytes` from device memory into the L2 cache.
__device__ inline void bulk_prefetch(const void* global, int bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}
/// Until the bulk stores of this thread have read their shared memory.
__device__ inline void bulk_stores_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ inline void bulk_stores_complete() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

template <int registers>
__device__ inline void registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace amalgam::kernels::hopper
