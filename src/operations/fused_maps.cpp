// SPDX-License-Identifier: Apache-2.0
#include "operations/fused_maps.h"

#include <ATen/ATen.h>

#include "operations/few_rows_map.h"
#include "operations/operations.h"
#include "operations/products.h"

namespace amalgam {

at::Tensor Normed::value() const {
    return rms_norm(x, weight, eps);
}

at::Tensor Sum::value() const {
    return addend.defined() ? x + addend : x;
}

at::Tensor linear_map(const Normed& x, const at::Tensor& weight, const at::Tensor& bias) {
    const at::Tensor y = few_rows_map(x.x, weight, bias, {.norm = x.weight, .eps = x.eps});
    return y.defined() ? y : linear_map(x.value(), weight, bias);
}

at::Tensor swiglu_map(const Normed& x, const at::Tensor& weight, const at::Tensor& bias) {
    const at::Tensor y = few_rows_map(x.x, weight, bias, {.norm = x.weight, .eps = x.eps, .gated = true});
    return y.defined() ? y : swiglu(linear_map(x.value(), weight, bias));
}

Sum add_linear_map(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    const at::Tensor y = few_rows_map(x, weight, bias, {.residual = residual});
    return y.defined() ? Sum{y} : Sum{residual, linear_map(x, weight, bias)};
}

}  // namespace amalgam
