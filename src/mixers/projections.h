// SPDX-License-Identifier: Apache-2.0
// The linear maps at both ends of a linear mixer: of its normed input, or, in steps of generation
// (Mixer::forward_step), of an input whose norm and whose place in the sum are theirs too.
#pragma once

#include "operations/few_rows_map.h"
#include "operations/fused_maps.h"
#include "operations/padding.h"
#include "operations/products.h"

namespace amalgam {

/// May have columns more than the weight has rows: what they hold means nothing.
inline at::Tensor project_in(const at::Tensor& x, const at::Tensor& weight) {
    return linear_map(x, padded_for_gpu(weight));
}
inline at::Tensor project_in(const Normed& x, const at::Tensor& weight) {
    const at::Tensor y = few_rows_map(x.x, weight, {}, {.norm = x.weight, .eps = x.eps});
    return y.defined() ? y : project_in(x.value(), weight);
}

inline at::Tensor project_out(const at::Tensor&, const at::Tensor& mixed, const at::Tensor& weight) {
    return linear_map(mixed, weight);
}
inline Sum project_out(const Normed& x, const at::Tensor& mixed, const at::Tensor& weight) {
    return add_linear_map(x.x, mixed, weight);
}

}  // namespace amalgam
