// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/key_value_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "kernels/decode_attention/decode_attention.h"
#include "operations/kernel_calls.h"
#include "operations/kernel_views.h"
#include "operations/operations.h"
#ifdef AMALGAM_CUDA
#include "operations/cuda_resources.h"
#endif

namespace amalgam {
namespace {

kernels::CacheShape kernel_shape(const AttentionShape& shape, int64_t batch, int64_t capacity) {
    return {batch, shape.query_heads, shape.key_value_heads, shape.head_dim, capacity};
}

bool has_kernel(const at::Tensor& t, [[maybe_unused]] const AttentionShape& shape) {
#ifdef AMALGAM_CUDA
    if (t.is_cuda())
        return runs_on_kernels(t) && kernels::cuda::decode_attention_supports(kernel_shape(shape, t.size(0), 1));
#endif
    return runs_on_cpu_kernels(t);
}

/// Queries that share a mask: it stays small beside keys and values, and keys that none of them sees are left out.
constexpr int64_t masked_queries = 1024;

}  // namespace

at::Tensor attend_to_last(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t window) {
    const int64_t time = q.size(2), keys = k.size(2);
    const bool windowed = window > 0 && keys > window;
    if (!windowed && (time == keys || has_causal_attention_to_more(q, k))) return causal_attention(q, k, v);
    const at::Tensor all_keys = for_query_heads(k, q.size(1)), all_values = for_query_heads(v, q.size(1));
    std::vector<at::Tensor> blocks;
    for (int64_t first = 0; first < time; first += masked_queries) {
        const int64_t count = std::min(masked_queries, time - first), last = keys - time + first;
        const int64_t begin = windowed ? std::max<int64_t>(0, last + 1 - window) : 0, seen = last + count - begin;
        const auto positions = at::arange(begin, begin + seen, q.options().dtype(at::kLong));
        const auto query_positions = positions.narrow(0, seen - count, count).unsqueeze(1);
        at::Tensor mask = positions.unsqueeze(0).le(query_positions);
        if (windowed) mask = mask.logical_and(positions.unsqueeze(0).gt(query_positions - window));
        blocks.push_back(masked_attention(q.narrow(2, first, count), all_keys.narrow(2, begin, seen),
                                          all_values.narrow(2, begin, seen), mask));
    }
    return blocks.size() == 1 ? blocks.front() : at::cat(blocks, 2);
}

KeyValueCache::KeyValueCache(const AttentionShape& shape, const CacheSize& size, at::TensorOptions options)
    : shape_(shape), capacity_(size.capacity) {
    const std::vector<int64_t> sizes = {size.slots, shape.key_value_heads, size.capacity, shape.head_dim};
    keys_ = at::empty(sizes, options);
    values_ = at::empty(sizes, options);
    if (!has_kernel(keys_, shape)) {  // a weight of zero would not hide a NaN
        keys_.zero_();
        values_.zero_();
    }
#ifdef AMALGAM_CUDA
    if (!keys_.is_cuda() || !has_kernel(keys_, shape)) return;
    int64_t workspace = 16, counters = 16;  // for any number of rows
    for (int64_t batch = 1; batch <= size.slots; ++batch) {
        workspace =
            std::max(workspace, kernels::cuda::decode_attention_workspace(kernel_shape(shape, batch, capacity_)));
        counters = std::max(counters, kernels::cuda::decode_attention_counters(kernel_shape(shape, batch, capacity_)));
    }
    workspace_ = device_bytes(keys_, size_t(workspace));
    counters_ = at::zeros({counters}, options.dtype(at::kByte));
#endif
}

void KeyValueCache::copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) {
    for (const at::Tensor& all : {keys_, values_}) {
        const at::Tensor seen = all.narrow(2, 0, tokens);
        at::Tensor(seen).index_copy_(0, to, seen.index_select(0, from));
    }
}

at::Tensor KeyValueCache::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const CacheChunk& chunk) {
    const int64_t time = q.size(2);
    keys_.narrow(2, chunk.first, time).index_copy_(0, chunk.slots, k);
    values_.narrow(2, chunk.first, time).index_copy_(0, chunk.slots, v);
    if (chunk.first == 0) return attend_to_last(q, k, v, shape_.window);
    const int64_t end = chunk.first + time;
    const int64_t begin = shape_.window > 0 ? std::max<int64_t>(0, chunk.first + 1 - shape_.window) : 0;
    const auto seen = [&](const at::Tensor& all) {
        return all.narrow(2, begin, end - begin).index_select(0, chunk.slots);
    };
    return attend_to_last(q, seen(keys_), seen(values_), shape_.window);
}

at::Tensor KeyValueCache::attend(const at::Tensor& projected, const HeadNorms& norms, const RotaryTables& rotary,
                                 const CacheStep& step) {
    if (!has_kernel(projected, shape_)) return attend_with_operations(projected, norms, rotary, step);
    const int64_t batch = projected.size(0), query = shape_.query_heads * shape_.head_dim,
                  key_value = shape_.key_value_heads * shape_.head_dim;
    const at::Tensor rows = projected.contiguous(), mixed = at::empty({batch, query}, projected.options()),
                     rotated = at::empty_like(mixed);
    const auto part = [&](int64_t first, int64_t width) { return const_rows(rows.narrow(1, first, width), 1); };
    kernels::CacheAppend append{};
    append.type = element_type(rows);
    append.shape = kernel_shape(shape_, batch, capacity_);
    append.slot = step.slots.const_data_ptr<int32_t>();
    append.length = step.lengths.const_data_ptr<int32_t>();
    append.q = part(0, query);
    append.k = part(query, key_value);
    append.v = part(query + key_value, key_value);
    if (norms.q.defined()) {
        append.q_norm = norms.q.const_data_ptr<float>();
        append.k_norm = norms.k.const_data_ptr<float>();
        append.epsilon = float(norms.eps);
    }
    append.cos = rotary.cos.const_data_ptr<float>();
    append.sin = rotary.sin.const_data_ptr<float>();
    append.rotated = amalgam::rows(rotated, 1);
    append.keys = keys_.data_ptr();
    append.values = values_.data_ptr();

    kernels::DecodeAttention attention{};
    attention.type = append.type;
    attention.shape = append.shape;
    attention.slot = append.slot;
    attention.length = append.length;
    attention.window = shape_.window;
    attention.q = append.rotated;
    attention.keys = append.keys;
    attention.values = append.values;
    attention.o = amalgam::rows(mixed, 1);
#ifdef AMALGAM_CUDA
    if (rows.is_cuda()) {
        kernels::cuda::append_and_attend(append, attention, workspace_.data_ptr(), counters_.data_ptr(),
                                         stream_of(rows));
        return mixed;
    }
#endif
    kernels::append_to_cache(append, kernel_threads());
    kernels::decode_attention(attention, kernel_threads());
    return mixed;
}

at::Tensor KeyValueCache::attend_with_operations(const at::Tensor& projected, const HeadNorms& norms,
                                                 const RotaryTables& rotary, const CacheStep& step) {
    const int64_t batch = projected.size(0), query = shape_.query_heads * shape_.head_dim,
                  key_value = shape_.key_value_heads * shape_.head_dim;
    const at::Tensor slots = step.slots.to(at::kLong), lengths = step.lengths.to(at::kLong);
    const auto parts = at::split_with_sizes(projected, {query, key_value, key_value}, -1);
    const auto heads = [&](const at::Tensor& t) { return t.unflatten(-1, {-1, shape_.head_dim}).unsqueeze(1); };
    at::Tensor q = heads(parts[0]), k = heads(parts[1]);
    if (norms.q.defined()) {
        q = rms_norm(q, norms.q, norms.eps);
        k = rms_norm(k, norms.k, norms.eps);
    }
    q = rotate_rows(q, rotary, step.lengths).squeeze(1);
    k = rotate_rows(k, rotary, step.lengths).squeeze(1);
    keys_.index_put_({slots, at::indexing::Slice(), lengths}, k);
    values_.index_put_({slots, at::indexing::Slice(), lengths}, heads(parts[2]).squeeze(1));
    const int64_t longest = lengths.max().item<int64_t>() + 1;
    const at::Tensor positions = at::arange(longest, lengths.options()).unsqueeze(0), last = lengths.unsqueeze(1);
    at::Tensor mask = positions.le(last);
    if (shape_.window > 0) mask = mask.logical_and(positions.gt(last - shape_.window));
    const auto seen = [&](const at::Tensor& all) {
        return for_query_heads(all.narrow(2, 0, longest).index_select(0, slots), shape_.query_heads);
    };
    return at::scaled_dot_product_attention(q.unsqueeze(2), seen(keys_), seen(values_),
                                            mask.view({batch, 1, 1, longest}))
        .reshape({batch, query});
}

}  // namespace amalgam
