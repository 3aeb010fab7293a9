// SPDX-License-Identifier: Apache-2.0
// Formats have one eps for all norms. Where the linear mixers' output norms have another one than the norms of the
// blocks, the same function is written with the residual stream scaled by s = sqrt(eps of the output norms / eps of the
// blocks): s x / sqrt(mean((s x)^2) + s^2 eps) = x / sqrt(mean(x^2) + eps).
#pragma once

#include "model/weights.h"

namespace amalgam {

/// A student as a model with one eps. Without linear layers, or where the two are equal already, it is as it was.
class OneEps : public TensorSource {
  public:
    /// `student` must outlive it.
    OneEps(const TensorSource& student, const ModelSpec& spec);

    /// What the tensors found here belong to: rms_norm_eps is the output norms'.
    const ModelSpec& spec() const { return spec_; }
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return student_.where(); }

  private:
    double factor(const std::string& name) const;

    const TensorSource& student_;
    ModelSpec spec_;
    double scale_ = 1.0;  // s
};

}  // namespace amalgam
