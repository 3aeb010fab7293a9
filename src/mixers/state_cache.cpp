// SPDX-License-Identifier: Apache-2.0
#include "mixers/state_cache.h"

#include <ATen/ATen.h>

#include "mixers/first_values.h"

namespace amalgam {

StateCache::StateCache(int64_t slots, int64_t heads, int64_t head_dim, int64_t channels, const at::TensorOptions& like)
    : states(at::zeros({slots, heads, head_dim, head_dim}, like.dtype(at::kFloat))) {
    if (channels > 0) recents = at::zeros({slots, short_convolution_taps - 1, channels}, like);
}

void StateCache::copy(const at::Tensor& from, const at::Tensor& to, int64_t) {
    states.index_copy_(0, to, states.index_select(0, from));
    if (recents.defined()) recents.index_copy_(0, to, recents.index_select(0, from));
}

at::Tensor StateCache::states_before(const CacheChunk& chunk) const {
    if (chunk.first > 0) return states.index_select(0, chunk.slots);
    auto sizes = states.sizes().vec();
    sizes[0] = chunk.slots.size(0);
    return at::zeros(sizes, states.options());
}

at::Tensor StateCache::recents_before(const CacheChunk& chunk) const {
    return chunk.first > 0 ? recents.index_select(0, chunk.slots) : at::Tensor();
}

at::Tensor StateCache::recents_after(const CacheChunk& chunk, const at::Tensor& before,
                                     const at::Tensor& inputs) const {
    const int64_t kept = recents.size(1), time = inputs.size(1);
    const at::Tensor all = before.defined() ? at::cat({before, inputs}, 1)
                                            : at::constant_pad_nd(inputs, {0, 0, kept, 0});  // zeros in front
    if (!chunk.counts.defined()) return all.narrow(1, time, kept);
    const at::Tensor places = chunk.counts.unsqueeze(1) + at::arange(kept, chunk.counts.options());
    return all.gather(1, places.unsqueeze(2).expand({-1, -1, inputs.size(2)}));
}

}  // namespace amalgam
