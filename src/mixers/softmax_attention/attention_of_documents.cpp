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

/// Of rows of tokens, each [tokens, heads, dim].
at::Tensor attend_at_once(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t window) {
    const at::Tensor starts = documents.starts().to(at::kInt);
    const auto before = window > 0 ? std::optional(window - 1) : std::nullopt;  // keys that a query sees beside its own
    return std::get<0>(at::_flash_attention_forward(q, k, v, starts, starts, documents.longest(), documents.longest(),
                                                    /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
                                                    /*scale=*/std::nullopt, before,
                                                    before ? std::optional<int64_t>(0) : std::nullopt));
}

at::Tensor attend_one_by_one(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             int64_t window) {
    const auto each = [&](const at::Tensor& t) {
        return at::split_with_sizes(t.transpose(0, 1).unsqueeze(0), documents.lengths(), 2);
    };
    const auto queries = each(q), keys = each(k), values = each(v);
    std::vector<at::Tensor> mixed;
    for (size_t d = 0; d < queries.size(); ++d) mixed.push_back(attend_to_last(queries[d], keys[d], values[d], window));
    return at::cat(mixed, 2).squeeze(0).transpose(0, 1);
}

}  // namespace

at::Tensor attend_within(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window) {
    const auto attend = takes_flash_attention(q) ? attend_at_once : attend_one_by_one;
    const at::Tensor mixed = attend(documents, in_one_row(q), in_one_row(k), in_one_row(v), window);
    return mixed.unflatten(0, {q.size(0), q.size(2)}).transpose(1, 2);
}

}  // namespace amalgam
