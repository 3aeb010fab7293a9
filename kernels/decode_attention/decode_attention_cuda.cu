// SPDX-License-Identifier: Apache-2.0
// How many blocks share a row's keys, and the calls of decode_attention.h but for the append alone.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/decode_attention/cuda_call.cuh"
#include "kernels/require.h"

namespace amalgam::kernels::cuda {
namespace {

using namespace decode;

constexpr float log2_e = 1.44269504F;

/// As many stretches, up to `most`, as promise the least time. `span`: keys of a full row.
Sharing sharing_of(const CacheShape& s, std::int64_t span, std::int64_t most) {
    static const int processors = multiprocessors();
    const auto [turn, bytes] = with_width(s.width, [](auto width) {
        using Tile = Tiles<decltype(width)::value>;
        return std::pair(warps * Tile::keys, Tile::bytes);
    });
    constexpr int of_processor = 228 << 10, reserved = 4 << 10;  // bytes of shared memory; of a block, beside its tiles
    const std::int64_t places = std::int64_t(processors) * (of_processor / (bytes + reserved));
    const int head_blocks = int((s.query_heads / s.key_value_heads + heads - 1) / heads);
    const std::int64_t blocks = s.batch * s.key_value_heads * head_blocks;
    const std::int64_t start = 48 * 128 / s.width;  // what a block takes to begin and to end

    struct Cut {
        std::int64_t splits = 0, share = 0, cost = 0;
    };
    const auto cheapest = [&](std::int64_t most_waves) {
        Cut best;
        for (std::int64_t wanted = 1; wanted <= most; ++wanted) {
            const std::int64_t share = (span + wanted * turn - 1) / (wanted * turn) * turn,
                               splits = (span + share - 1) / share, waves = (blocks * splits + places - 1) / places;
            if (waves > most_waves) continue;
            // In keys that a block reads. Rows of unequal lengths leave places without work at the end, for half a
            // share or so; parts are put together one after the other.
            const std::int64_t cost = waves * (share + start) + share / 4 + (splits > 1 ? 2 * splits : 0);
            if (best.splits == 0 || cost < best.cost) best = {splits, share, cost};
        }
        return best;
    };
    // Where one wave of blocks nearly fills the GPU, more of them only cost: their blocks start late, without keys
    // fetched during the kernel in front, and a row has more parts. Such a wave runs as long as its longest stretch, so
    // that each row is cut evenly, however long it is; several waves fill the places best with stretches of one length.
    const Cut one_wave = cheapest(1);
    if (4 * blocks * one_wave.splits >= 3 * places) return {int(one_wave.splits), turn, turn, head_blocks};
    const Cut cut = cheapest(std::numeric_limits<std::int64_t>::max());
    return {int(cut.splits), turn, int(cut.share), head_blocks};
}
Sharing sharing_of(const CacheShape& s) {
    return sharing_of(s, std::max<std::int64_t>(s.capacity, 1), most_splits);
}
/// No more stretches than without a window: the workspace is that of the shape.
Sharing sharing_of(const DecodeAttention& a) {
    const Sharing all = sharing_of(a.shape);
    return a.window > 0 && a.window < a.shape.capacity ? sharing_of(a.shape, a.window, all.splits) : all;
}

/// Of a row's parts where several blocks share its keys.
std::int64_t partial_results(const CacheShape& s) {
    const int splits = sharing_of(s).splits;
    return splits == 1 ? 0 : s.batch * s.query_heads * splits;
}
std::int64_t weights_bytes(const CacheShape& s) {
    return (partial_results(s) * std::int64_t(sizeof(float2)) + 15) / 16 * 16;
}

void attend(const DecodeAttention& a, const CacheAppend* append, void* workspace, void* counters, Stream stream) {
    const CacheShape& s = a.shape;
    require(decode_attention_supports(s), operation, no_kernel);
    require(aligned(a.q, a.type) && aligned(a.o, a.type) && aligned(a.keys) && aligned(a.values), operation,
            "a row does not start at a multiple of 16 bytes (keys are copied 16 bytes at a time); align it");
    if (s.batch == 0) return;
    const Sharing sharing = sharing_of(a);
    Call call{a, append == nullptr ? CacheAppend{} : *append, sharing, 0, nullptr, nullptr, nullptr};
    call.scale = log2_e * (a.scale == 0 ? 1.0F / sqrtf(float(s.width)) : a.scale);
    call.arrived = static_cast<unsigned*>(counters);
    call.weights = static_cast<float2*>(workspace);
    call.mixed = reinterpret_cast<float*>(static_cast<char*>(workspace) + weights_bytes(s));
    const dim3 grid(unsigned(s.key_value_heads * sharing.head_blocks), unsigned(sharing.splits), unsigned(s.batch));
    if (a.type == ElementType::bfloat16) return attend_bfloat16(call, append != nullptr, grid, stream);
    attend_float32(call, grid, stream);
}

}  // namespace

bool decode_attention_supports(const CacheShape& s) {
    return (s.width == 32 || s.width == 64 || s.width == 96 || s.width == 128) && s.batch < 65536 &&
           s.key_value_heads > 0 && s.query_heads % s.key_value_heads == 0;
}

std::int64_t decode_attention_workspace(const CacheShape& s) {
    return weights_bytes(s) + partial_results(s) * s.width * 4;
}

std::int64_t decode_attention_counters(const CacheShape& s) {
    return s.batch * s.key_value_heads * sharing_of(s).head_blocks * 4;
}

void decode_attention(const DecodeAttention& a, void* workspace, void* counters, Stream stream) {
    attend(a, nullptr, workspace, counters, stream);
}

void append_and_attend(const CacheAppend& append, const DecodeAttention& a, void* workspace, void* counters,
                       Stream stream) {
    if (a.type == ElementType::bfloat16) return attend(a, &append, workspace, counters, stream);
    append_to_cache(append, stream);
    attend(a, nullptr, workspace, counters, stream);
}

}  // namespace amalgam::kernels::cuda
