// SPDX-License-Identifier: Apache-2.0
// Where the backward pass of one micro-batch leaves its gradients: a sum of whole gradients (gradients.h), or shards
// that are reduced while earlier layers are still computed (sharded_gradients.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "parameters/parameters.h"

namespace amalgam {

class GradientSink {
  public:
    virtual ~GradientSink() = default;

    /// fp32 view of the parameter's gradient, to be added to. Undefined tensor if the parameter is not trained.
    virtual at::Tensor of(const Parameter& parameter) = 0;
    /// Adds `gradient` (any type) to the parameter's; an undefined one counts as zero.
    virtual void add(const Parameter& parameter, const at::Tensor& gradient) = 0;
    /// This micro-batch adds nothing more to parameters of `layer` (-1: outside the blocks). To be called once in every
    /// micro-batch for every layer with trained parameters, in the same order on all ranks.
    virtual void complete(int64_t layer) = 0;
};

}  // namespace amalgam
