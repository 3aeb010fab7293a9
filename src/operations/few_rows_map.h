// SPDX-License-Identifier: Apache-2.0
// Maps of few rows, as the steps of generation have them: the time is that of reading the weights
// (kernels/few_rows_product).
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// While one lives on a thread (one at a time), maps of few rows read every weight once. For steps of generation:
/// elsewhere the bits of a product must not depend on how many tokens are computed together.
class FewRowsAtATime {
  public:
    /// Weights that are `there` were written long before the maps are queued; others (of sharded models) GPUs leave to
    /// LibTorch, since their kernel fetches weights while the kernel in front of it is at work.
    explicit FewRowsAtATime(bool there = true);
    ~FewRowsAtATime();
    FewRowsAtATime(const FewRowsAtATime&) = delete;
    FewRowsAtATime& operator=(const FewRowsAtATime&) = delete;
};

/// What GPUs compute in the same kernel: an RMS norm of x, silu(gate) * up of the halves of the result, a sum.
struct AroundMap {
    at::Tensor norm = {};  // fp32 [in]
    double eps = 0;
    bool gated = false;
    at::Tensor residual = {};
};

/// x weight^T + bias with what is around it. Undefined where that is no step or has no kernel, or LibTorch's product is
/// as fast.
at::Tensor few_rows_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const AroundMap& around = {});

}  // namespace amalgam
