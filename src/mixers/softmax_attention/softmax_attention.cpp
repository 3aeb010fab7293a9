// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/softmax_attention.h"

#include <ATen/ATen.h>

#include "mixers/context_exchange.h"
#include "mixers/sequence_pieces.h"
#include "mixers/softmax_attention/attention_of_documents.h"
#include "mixers/softmax_attention/attention_of_piece.h"
#include "mixers/softmax_attention/exports.h"
#include "operations/operations.h"
#include "operations/partial_attention.h"
#include "operations/products.h"

namespace amalgam {

SoftmaxAttention::SoftmaxAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : shape_{spec.config.query_heads, spec.config.key_value_heads, spec.config.head_dim,
             spec.config.window[size_t(layer)]},
      norm_eps_(spec.config.rms_norm_eps) {
    const MixerParameters parameters(softmax_attention_declaration(), spec, layer, store);
    qkv_ = parameters.find("self_attn.qkv_proj.weight");
    qkv_bias_ = parameters.find("self_attn.qkv_proj.bias");
    output_ = parameters.find("self_attn.o_proj.weight");
    output_bias_ = parameters.find("self_attn.o_proj.bias");
    q_norm_ = parameters.find("self_attn.q_norm.weight");
    k_norm_ = parameters.find("self_attn.k_norm.weight");
}

at::Tensor SoftmaxAttention::project(const at::Tensor& x) const {
    return linear_map(x, qkv_->compute, compute_if_there(qkv_bias_));
}

at::Tensor SoftmaxAttention::output(const at::Tensor& mixed) const {
    return linear_map(mixed, output_->compute, compute_if_there(output_bias_));
}

template <class Attend>
at::Tensor SoftmaxAttention::mix(const at::Tensor& x, const RotaryTables& rotary, Attend attend) const {
    const int64_t q_width = shape_.query_heads * shape_.head_dim, kv_width = shape_.key_value_heads * shape_.head_dim;
    auto parts = at::split_with_sizes(project(x), {q_width, kv_width, kv_width}, -1);
    auto heads = [&](const at::Tensor& t) { return t.unflatten(-1, {-1, shape_.head_dim}); };
    at::Tensor q = heads(parts[0]), k = heads(parts[1]), v = heads(parts[2]);
    if (q_norm_) {
        q = rms_norm(q, q_norm_->compute, norm_eps_);
        k = rms_norm(k, k_norm_->compute, norm_eps_);
    }
    q = rotate(q, rotary).transpose(1, 2);  // [batch, heads, time, dim]
    k = rotate(k, rotary).transpose(1, 2);
    return output(attend(q, k, v.transpose(1, 2)).transpose(1, 2).reshape({x.size(0), x.size(1), q_width}));
}

at::Tensor SoftmaxAttention::forward(const at::Tensor& x, const SequencePlaces& places) const {
    return mix(x, places.rotary, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        if (places.documents) return attend_within(*places.documents, q, k, v, shape_.window);
        return places.context ? attend_to_piece(q, k, v, places) : attend_to_last(q, k, v, shape_.window);
    });
}

at::Tensor SoftmaxAttention::attend_to_piece(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const SequencePlaces& places) const {
    // The same on all ranks: the two ways have different messages.
    const bool sees_all = !places.documents_of_piece && (shape_.window == 0 || places.length <= shape_.window);
    if (sees_all && partial_attention_of(q, k, v)) return attention_of_piece(*places.context, q, k, v, places.length);
    const KeysAndValues all = with_keys_before(*places.context, k, v, places.length, first_seen(places));
    if (places.documents_of_piece) return attend_within(*places.documents_of_piece, q, all, shape_.window);
    return attend_to_last(q, at::cat({all.k_before, all.k}, 2), at::cat({all.v_before, all.v}, 2), shape_.window);
}

std::vector<int64_t> SoftmaxAttention::first_seen(const SequencePlaces& places) const {
    const int64_t ranks = places.context->ranks();
    std::vector<int64_t> first =
        places.documents_of_piece ? places.documents_of_piece->beginnings() : std::vector<int64_t>(size_t(ranks), 0);
    for (int64_t rank = 0; shape_.window > 0 && rank < ranks; ++rank)
        first[size_t(rank)] =
            std::max(first[size_t(rank)], sequence_piece(places.length, ranks, rank).first - (shape_.window - 1));
    return first;
}

at::Tensor SoftmaxAttention::forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                                           const CacheChunk& chunk) const {
    return mix(x, rotary, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return static_cast<KeyValueCache&>(cache).attend(q, k, v, chunk);
    });
}

Sum SoftmaxAttention::forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                                   const CacheStep& step) const {
    HeadNorms norms;
    if (q_norm_) norms = {q_norm_->compute, k_norm_->compute, norm_eps_};
    const at::Tensor projected = linear_map(x, qkv_->compute, compute_if_there(qkv_bias_));
    const at::Tensor mixed = static_cast<KeyValueCache&>(cache).attend(projected.squeeze(1), norms, rotary, step);
    return add_linear_map(x.x, mixed.unsqueeze(1), output_->compute, compute_if_there(output_bias_));
}

std::unique_ptr<MixerCache> SoftmaxAttention::make_cache(const CacheSize& size, at::Device device) const {
    return std::make_unique<KeyValueCache>(shape_, size, at::TensorOptions(device).dtype(qkv_->compute.scalar_type()));
}

int64_t SoftmaxAttention::cache_bytes(int64_t capacity) const {
    return 2 * shape_.key_value_heads * shape_.head_dim * capacity *
           int64_t(c10::elementSize(qkv_->compute.scalar_type()));
}

const MixerImplementation& softmax_attention_implementation() {
    static const MixerImplementation implementation = {make_module<SoftmaxAttention>, softmax_attention_exports()};
    return implementation;
}

}  // namespace amalgam
