// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention where ranks share sequences (mixers/context_group.h), the same work for each of them.
//
// The queries of a piece see its own tokens causally and all earlier pieces whole. Of what they do with an earlier
// piece, its rank computes a half: the first half of the queries goes to the keys, the keys go to the second half. So
// with T tokens a rank with c of them multiplies c^2 / 2 + c (T - c) / 2 = c T / 2 pairs of query and key; if keys
// alone travelled, the last of N ranks would have (2 N - 1) / N times the mean.
//
// Forward pass                                            Backward pass
//   along    keys and values, to all later ranks            against  first halves of q, d_o, o and logarithms of sums
//   against  first halves of queries, to all earlier ones   along    gradients of those q
//   along    what they found there                          against  gradients of the keys and values of second halves
//
// The lag between ranks is hidden. Forward, a rank that is ahead has its own tokens to attend to while the queries of
// later ranks are on their way; those ranks find what they ask for computed when they are through with their own.
// Backward, later ranks are ahead: their questions are there when an earlier rank comes, which answers them first.
#pragma once

#include "mixers/context_group.h"

namespace amalgam {

/// q [batch, heads, time, dim], k and v [batch, kv heads, time, dim] of this rank's piece of sequences of `length`
/// tokens -> as q. Differentiable. Only where there is a partial_attention_of these, on all ranks of the group. A
/// forward pass that is computed again has its output from the first (ContextGroup::once).
at::Tensor attention_of_piece(ContextGroup& context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              int64_t length);

}  // namespace amalgam
