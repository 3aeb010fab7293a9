// SPDX-License-Identifier: Apache-2.0
// Keys and values that the sequences in a cache have seen, and attention to them: of chunks by LibTorch's
// scaled_dot_product_attention, of single tokens by kernels/decode_attention where it takes the type and the width.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

/// Of one layer; `window` as in ModelConfig.
struct AttentionShape {
    int64_t query_heads, key_value_heads, head_dim, window;
};

/// RMS norms of the heads of q and k, fp32 [head_dim]; undefined where there are none.
struct HeadNorms {
    at::Tensor q, k;
    double eps = 0.0;
};

class KeyValueCache : public MixerCache {
  public:
    KeyValueCache(const AttentionShape& shape, const CacheSize& size, at::TensorOptions options);
    void copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) override;

    /// q [batch, query heads, time, dim], k and v [batch, kv heads, time, dim], normed and rotated -> as q.
    at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CacheChunk& chunk);

    /// projected [batch, (query heads + 2 kv heads) * dim] of one token each, before norm and rotation -> [batch,
    /// query heads * dim]. `rotary` holds the tables of all positions.
    at::Tensor attend(const at::Tensor& projected, const HeadNorms& norms, const RotaryTables& rotary,
                      const CacheStep& step);

  private:
    at::Tensor attend_with_operations(const at::Tensor& projected, const HeadNorms& norms, const RotaryTables& rotary,
                                      const CacheStep& step);

    AttentionShape shape_;
    int64_t capacity_;
    at::Tensor keys_, values_;          // [slots, kv heads, capacity, dim], keys after rotation
    at::Tensor workspace_, counters_;  // of the kernel on GPUs
};

/// Attention of queries that are the last `time` of the keys' positions, q [batch, heads, time, dim], k and v [batch, kv
/// heads, keys, dim].
at::Tensor attend_to_last(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t window);

}  // namespace amalgam
