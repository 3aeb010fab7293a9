// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/attention_of_documents.h"

#include <ATen/ATen.h>

#include "mixers/softmax_attention/key_value_cache.h"

namespace amalgam {
namespace {

bool takes_flash_attention(const at::Tensor& q) {
    return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.size(-1) % 8 == 0 && q.size(-1) <= 256;
}

/// [batch, heads, time, dim] -> [batch * time, heads, dim].
at::Tensor in_one_row(const at::Tensor& t) {
    return t.transpose(1, 2).flatten(0, 1);
}

/// Of rows of tokens, each [tokens, heads, dim]. A text's queries are the last of its keys' positions.
at::Tensor attend_at_once(const PackedTexts& queries, const PackedTexts& keys, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, int64_t window) {
    const auto before = window > 0 ? std::optional(window - 1) : std::nullopt;  // keys that a query sees beside its own
    return std::get<0>(at::_flash_attention_forward(
        q, k, v, queries.starts().to(at::kInt), keys.starts().to(at::kInt), queries.longest(), keys.longest(),
        /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, /*scale=*/std::nullopt, before,
        before ? std::optional<int64_t>(0) : std::nullopt));
}

at::Tensor attend_one_by_one(const PackedTexts& queries, const PackedTexts& keys, const at::Tensor& q,
                             const at::Tensor& k, const at::Tensor& v, int64_t window) {
    const auto each = [](const at::Tensor& t, const PackedTexts& texts) {
        return at::split_with_sizes(t.transpose(0, 1).unsqueeze(0), texts.lengths(), 2);
    };
    const auto q_of = each(q, queries), k_of = each(k, keys), v_of = each(v, keys);
    std::vector<at::Tensor> mixed;
    for (size_t d = 0; d < q_of.size(); ++d) mixed.push_back(attend_to_last(q_of[d], k_of[d], v_of[d], window));
    return at::cat(mixed, 2).squeeze(0).transpose(0, 1);
}

/// q [batch, heads, time, dim], k and v rows of tokens -> as q.
at::Tensor attend(const PackedTexts& queries, const PackedTexts& keys, const at::Tensor& q, const at::Tensor& k,
                  const at::Tensor& v, int64_t window) {
    const auto mix = takes_flash_attention(q) ? attend_at_once : attend_one_by_one;
    return mix(queries, keys, in_one_row(q), k, v, window).unflatten(0, {q.size(0), q.size(2)}).transpose(1, 2);
}

}  // namespace

at::Tensor attend_within(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window) {
    return attend(documents, documents, q, in_one_row(k), in_one_row(v), window);
}

at::Tensor attend_within(const DocumentsOfPiece& documents, const at::Tensor& q, const KeysAndValues& keys,
                         int64_t window) {
    const int64_t sequences = q.size(0), there = keys.k_before.size(2);
    std::vector<int64_t> lengths = documents.own().lengths();
    std::vector<at::Tensor> k, v;
    for (int64_t s = 0; s < sequences; ++s) {
        // Of the keys before, which are as many in every sequence, the last ones may be the first document's.
        const int64_t before = std::min(documents.before()[size_t(s)], there);
        lengths[size_t(documents.first()[size_t(s)])] += before;
        k.insert(k.end(), {keys.k_before[s].narrow(1, there - before, before), keys.k[s]});
        v.insert(v.end(), {keys.v_before[s].narrow(1, there - before, before), keys.v[s]});
    }
    const auto joined = [](const std::vector<at::Tensor>& parts) { return at::cat(parts, 1).transpose(0, 1); };
    return attend(documents.own(), PackedTexts(std::move(lengths), q.device()), q, joined(k), joined(v), window);
}

}  // namespace amalgam
