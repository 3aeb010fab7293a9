// SPDX-License-Identifier: Apache-2.0
// Blocks of a cluster: their common barrier, and writes into each other's shared memory that complete on a barrier
// there.
#pragma once

#include <cstdint>

namespace amalgam::kernels::hopper {

__device__ inline void cluster_arrive() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
    __syncwarp();
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// The address that a place in this block's shared memory has in the block of `rank`.
__device__ inline uint32_t address_in(int rank, uint32_t shared) {
    uint32_t result;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(shared), "r"(rank));
    return result;
}

/// Writes to an address of address_in; `barrier`, of the same block, counts the bytes.
__device__ inline void store_remote(uint32_t address, float x, uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(address), "f"(x),
                 "r"(barrier)
                 : "memory");
}
__device__ inline void store_remote(uint32_t address, const float (&x)[4], uint32_t barrier) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(address),
        "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]), "r"(barrier)
        : "memory");
}

}  // namespace amalgam::kernels::hopper
