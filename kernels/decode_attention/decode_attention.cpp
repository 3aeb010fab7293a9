// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/decode_attention/decode_attention.h"

#include <string>

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void append_to_cache(const CacheAppend&, int); void decode_attention(const DecodeAttention&, int);)

namespace {

void check(const CacheShape& s, const std::int32_t* slot, const std::int32_t* length, const char* operation) {
    require(s.query_heads > 0 && s.key_value_heads > 0 && s.query_heads % s.key_value_heads == 0, operation,
            "query_heads is no multiple of key_value_heads (every query head belongs to one of them)");
    require(s.width > 0 && s.width % 2 == 0, operation, "width is odd (its halves are rotated into each other)");
    require(s.batch == 0 || (slot != nullptr && length != nullptr), operation,
            "slot or length is null (every row needs them)");
    for (std::int64_t i = 0; i < s.batch; ++i) {
        if (slot[i] < 0 || (length[i] >= 0 && length[i] < s.capacity)) continue;
        require(false, operation,
                "row " + std::to_string(i) + " has length " + std::to_string(length[i]) + " (a slot holds " +
                    std::to_string(s.capacity) + " tokens); make the cache larger");
    }
}

}  // namespace

void append_to_cache(const CacheAppend& arguments, int threads) {
    check(arguments.shape, arguments.slot, arguments.length, "append_to_cache");
    require((arguments.q_norm == nullptr) == (arguments.k_norm == nullptr), "append_to_cache",
            "only one of q and k has a norm (both or none have); pass both");
    AMALGAM_VARIANT(Isa::automatic, append_to_cache)(arguments, threads);
}

void decode_attention(const DecodeAttention& arguments, int threads) {
    check(arguments.shape, arguments.slot, arguments.length, "decode_attention");
    AMALGAM_VARIANT(Isa::automatic, decode_attention)(arguments, threads);
}

}  // namespace amalgam::kernels
