// SPDX-License-Identifier: Apache-2.0
// The append as a kernel of its own.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/decode_attention/cuda_append.cuh"
#include "kernels/decode_attention/cuda_call.cuh"
#include "kernels/require.h"

namespace amalgam::kernels::cuda {
namespace {

using namespace decode;

/// A warp takes one head of one row: query heads, then key heads, then value heads.
template <class T, int pairs>
__global__ void __launch_bounds__(threads) append_kernel(const __grid_constant__ CacheAppend a) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const CacheShape& s = a.shape;
    const int row = int(blockIdx.y), width = int(s.width);
    int head = int(blockIdx.x) * warps + int(threadIdx.x) / 32;
    const int position = a.length[row], slot = a.slot[row];
    const int query_heads = int(s.query_heads), key_heads = int(s.key_value_heads);
    if (slot < 0 || position < 0 || position >= s.capacity || head >= query_heads + 2 * key_heads) return;
    const bool query = head < query_heads, value = head >= query_heads + key_heads;
    head -= query ? 0 : value ? query_heads + key_heads : query_heads;
    const T* x = row_of<T>(query ? a.q : value ? a.v : a.k, row) + std::int64_t(head) * width;
    T* y = query   ? row_of<T>(a.rotated, row) + std::int64_t(head) * width
           : value ? static_cast<T*>(a.values) + in_cache(s, slot, head, position)
                   : static_cast<T*>(a.keys) + in_cache(s, slot, head, position);
    TableRow<pairs> table;
    if (!value) table.load(a, position);
    Head<T, pairs> channels;
    channels.load(x, width);
    channels.append(a, query, value, table);
    channels.store(y, width);
}

}  // namespace

void append_to_cache(const CacheAppend& a, Stream stream) {
    require(decode_attention_supports(a.shape), operation, no_kernel);
    if (a.shape.batch == 0) return;
    const std::int64_t all = a.shape.query_heads + 2 * a.shape.key_value_heads;
    const dim3 grid(unsigned((all + warps - 1) / warps), unsigned(a.shape.batch));
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        with_width(a.shape.width, [&](auto width) {
            launch_early(append_kernel<T, (decltype(width)::value / 2 + 31) / 32>, grid, threads, 0, 1, stream,
                         "append_to_cache", a);
        });
    });
}

}  // namespace amalgam::kernels::cuda
