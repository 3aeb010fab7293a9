// SPDX-License-Identifier: Apache-2.0
// Softmax attention to the keys of a sequence in parts: queries attend to one set of keys at a time, on whichever rank,
// and what they find is merged. Attention to several sets is that to each, weighted by its share of the sum of
// exponentials: with outputs o_s and logarithms of these sums l_s,
//     l = log(sum_s e^l_s),   o = sum_s e^(l_s - l) o_s.
// The backward pass of any set needs o and l alone (the weights are e^(q.k - l), Dao, arXiv 2307.08691, algorithm 2):
// it is LibTorch's of each set, given the o and l of all.
//
// q [batch, heads, time, dim], k and v [batch, kv heads, keys, dim], time = keys where the mask is causal. Memory grows
// with time + keys, not with their product. Not differentiable by autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace amalgam {

/// Who computes.
enum class PartialAttention : int64_t { cpu, flash, cudnn };

/// For these operands of causal attention: on CPUs, and on GPUs where LibTorch takes them to cuDNN or flash attention
/// (bf16); elsewhere null. The same for all sizes. On CPUs, operands that products widen (products.h) are to be widened
/// before, for speed.
std::optional<PartialAttention> partial_attention_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

enum class AttentionMask { none, causal };

/// o as q, log_sum [batch, heads, time, 1] in fp32 (fp64 where q is).
struct Attended {
    at::Tensor o, log_sum;
    at::Tensor seed, offset;  // of no dropout, any part's will do; GPUs' backward passes want them

    /// Those of `count` queries from `first` on, which share memory with the others.
    Attended narrow(int64_t first, int64_t count) const;
};

/// To one set of keys.
Attended attend(PartialAttention by, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, AttentionMask mask);

/// Adds to `sum`, in its place, what its queries found in other sets. Rounded once.
void merge_into(const Attended& sum, const std::vector<Attended>& others);

struct AttendedGradients {
    at::Tensor q, k, v;
};

/// Of one set of keys; the gradients of q are to be summed over the sets. `all`: of all sets, d_o: its gradient.
AttendedGradients attend_backward(PartialAttention by, const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const Attended& all, AttentionMask mask);

}  // namespace amalgam
