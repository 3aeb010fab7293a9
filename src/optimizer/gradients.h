// SPDX-License-Identifier: Apache-2.0
// The gradients of one optimizer step: one flat fp32 buffer, summed over micro-batches and ranks.
//
// In the order-independent mode every micro-batch is added as integers of 2^-50, and integer sums do not depend on
// their order: the same job gives the same bits on any number of ranks. So that no sum can wrap around, a gradient
// above 2^12 / (micro-batches of a step) counts as not finite.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "optimizer/gradient_sink.h"
#include "parameters/parameters.h"
#include "sharding/tensor_collectives.h"

namespace amalgam {

class Gradients : public GradientSink {
  public:
    /// `micro_batches`: commits of one step over all ranks, in the order-independent mode.
    Gradients(const std::vector<Parameter*>& parameters, at::Device device, bool order_independent,
              int64_t micro_batches = 1);

    void clear();
    at::Tensor of(const Parameter& parameter) override;
    void add(const Parameter& parameter, const at::Tensor& gradient) override;
    void complete(int64_t) override {}
    /// Ends a micro-batch: what was added since the last call becomes final.
    void commit();
    /// Sum over the ranks of a group.
    void reduce(TensorCollectives& group);
    /// Was what this rank added to the last sum finite?
    bool own_finite() const;

    /// Global L2 norm, after reduce. Not finite if any gradient is not. Exact in the order-independent mode.
    double norm(int threads);
    /// Name of a parameter whose gradient is not finite, for messages; empty if none.
    std::string not_finite();

    const at::Tensor& flat() {
        settle();
        return flat_;
    }

  private:
    struct View {
        at::Tensor gradient;
        bool written = true;  // false: what lies there is of the last step, the first gradient overwrites it
    };
    /// Zeroes what nobody has written.
    void settle();
    void count(const at::Tensor& bad);

    std::vector<Parameter*> parameters_;
    std::map<const Parameter*, View> views_;
    at::Tensor own_;    // of the last sum: a number that is not zero or not finite where what this rank added was bad
    double largest_;    // of a micro-batch's gradients, order-independent mode
    at::Tensor flat_;   // fp32
    at::Tensor fixed_;  // int64, order-independent mode only: sums, then for each parameter the bad micro-batches
};

}  // namespace amalgam
