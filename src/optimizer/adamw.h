// SPDX-License-Identifier: Apache-2.0
// AdamW on fp32 masters, one learning rate for each parameter group. Writes the compute tensors too.
#pragma once

#include <vector>

#include "job/job.h"
#include "optimizer/gradients.h"

namespace amalgam {

/// What one update reads and writes: fp32 tensors of equal shape, contiguous.
struct AdamWTensors {
    ParameterGroup group;
    at::Tensor master, gradient, exp_avg, exp_avg_sq;
    at::Tensor compute;  // undefined, or bf16: gets the updated master too
};

/// One update; `step` counts from 1. `rate_factor` multiplies both learning rates (schedule), `gradient_factor` the
/// gradients (clipping), which may be overwritten.
void adamw_update(const std::vector<AdamWTensors>& tensors, const OptimizerJob& options, int64_t step,
                  double rate_factor, double gradient_factor, int threads);

class AdamW {
  public:
    AdamW(const std::vector<Parameter*>& parameters, const OptimizerJob& options);

    /// One update, as adamw_update.
    void step(Gradients& gradients, double rate_factor, double gradient_factor, int threads);

    int64_t steps() const { return steps_; }
    void set_steps(int64_t steps) { steps_ = steps; }

    /// Moments by named tensor (pieces of fused parameters under their own names): for checkpoints.
    void for_each_moment(
        const std::function<void(const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq)>& visit);

  private:
    struct Moments {
        Parameter* parameter;
        at::Tensor exp_avg, exp_avg_sq;
    };
    std::vector<Moments> moments_;
    OptimizerJob options_;
    int64_t steps_ = 0;
};

/// Factor on the learning rate at `step` of `steps` (0-based): warm-up, then the schedule.
double schedule_factor(const OptimizerJob& options, int64_t step, int64_t steps);

}  // namespace amalgam
