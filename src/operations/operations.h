// SPDX-License-Identifier: Apache-2.0
// The operations of a block that LibTorch lacks or is slow in, with autograd. In fp32 and bf16 they run kernels/, on
// CPUs and on NVIDIA GPUs; otherwise LibTorch operations of the same formula. Statistics are fp32 whatever the type of
// the data.
#pragma once

#include <ATen/core/Tensor.h>

#include "operations/rope.h"

namespace amalgam {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension; weight fp32.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// x + residual, and rms_norm of that; x and residual of the same shape.
struct SumAndNorm {
    at::Tensor sum, normed;
};
SumAndNorm add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);

/// silu(gate) * up; fused [..., 2 * width] holds gate | up.
at::Tensor swiglu(const at::Tensor& fused);

/// Rotary embedding of x [batch, time, heads, dim].
at::Tensor rotate(const at::Tensor& x, const RotaryTables& tables);

/// The same of one token each, x [batch, 1, heads, dim], at positions [batch] (int32, on the device) of the tables.
at::Tensor rotate_rows(const at::Tensor& x, const RotaryTables& tables, const at::Tensor& positions);

/// Causal attention, q [batch, heads, time, dim], k and v [batch, kv heads, keys, dim] -> as q. There are as many keys
/// as queries or, where has_causal_attention_to_more, more: then the queries are those of the last keys. No gradients
/// then.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
bool has_causal_attention_to_more(const at::Tensor& q, const at::Tensor& k);
/// The same with a mask [queries, keys], true where a query sees a key, and as many heads in k and v as in q.
at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask);
/// Keys or values [batch, kv heads, keys, dim] with a head for each of the `heads` of queries: what forms of attention
/// take that do not know of groups.
at::Tensor for_query_heads(const at::Tensor& t, int64_t heads);

/// RMSNorm per head (skipped if weight is undefined) times SiLU(gate) (skipped if gate is undefined).
/// o [batch, time, heads, dim], gate [batch, time, heads * dim] -> [batch, time, heads * dim].
at::Tensor gated_rms_norm(const at::Tensor& o, const at::Tensor& gate, const at::Tensor& weight, double eps);

/// Depthwise causal convolution over time, then SiLU if `activation`, of the first channels of x [batch, time,
/// columns]; the other columns are passed on as they are. Weight fp32 [channels, width]; the last tap is the current
/// token. `recent` [batch, width - 1, channels], where given, holds the inputs before and is advanced (generation);
/// undefined or absent: zeros.
at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation, at::Tensor* recent);

/// The same for one new token of each of several sequences, x [batch, 1, columns]: the inputs before are those of
/// `recents` [slots, width - 1, channels] in slots [batch] (int32, on the device of x) and are advanced in place.
at::Tensor short_convolution_step(const at::Tensor& x, const at::Tensor& weight, bool activation,
                                  const at::Tensor& recents, const at::Tensor& slots);

}  // namespace amalgam
