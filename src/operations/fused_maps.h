// SPDX-License-Identifier: Apache-2.0
// Linear maps with what stands around them in a block. In steps of generation on GPUs (FewRowsAtATime) each is one
// kernel (kernels/few_rows_product); elsewhere they are the operations of operations.h and products.h.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// The RMS norm of x, computed by whoever reads it: x [..., in], weight fp32 [in].
struct Normed {
    at::Tensor x, weight;
    double eps;

    at::Tensor value() const;
};

/// x + addend, or x alone: a sum that has been computed, or that whoever reads it computes.
struct Sum {
    at::Tensor x, addend = {};

    at::Tensor value() const;
};

/// linear_map of the norm.
at::Tensor linear_map(const Normed& x, const at::Tensor& weight, const at::Tensor& bias = {});
/// swiglu of the map of the norm; weight [2 * width, in] holds gate | up -> [..., width].
at::Tensor swiglu_map(const Normed& x, const at::Tensor& weight, const at::Tensor& bias = {});
/// residual + linear_map(x), shaped as the residual.
Sum add_linear_map(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias = {});

}  // namespace amalgam
