// SPDX-License-Identifier: Apache-2.0
// The gradients of one optimizer step of a sharded model. As soon as a layer's gradients of a micro-batch are complete
// they are reduced and scattered, while the layer before is still computed; this rank keeps the sum over micro-batches
// of its shard. In the order-independent mode sums are those of gradients.h, bit for bit.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "optimizer/gradient_sink.h"
#include "sharding/sharded_model.h"

namespace amalgam {

class ShardedGradients : public GradientSink {
  public:
    /// `parameters`: all or none of every flat buffer. `micro_batches`: of one step over all ranks, in the
    /// order-independent mode. Collective.
    ShardedGradients(ShardedModel& model, const std::vector<Parameter*>& parameters, bool order_independent,
                     int64_t micro_batches = 1);

    void clear();
    at::Tensor of(const Parameter& parameter) override;
    void add(const Parameter& parameter, const at::Tensor& gradient) override;
    void complete(int64_t layer) override;
    /// Ends a step: waits for what is under way, and sums over replicas. Collective, as all of the following.
    void reduce();

    /// Global L2 norm, after reduce. Not finite if any gradient is not. Exact in the order-independent mode.
    double norm(int threads);
    /// Name of a parameter whose gradient is not finite, for messages; empty if none.
    std::string not_finite();
    /// Were this rank's own gradients finite, before they were summed?
    bool own_finite() const;

    /// This rank's shard of the gradient of a flat buffer, fp32, after reduce.
    struct Shard {
        FlatParameters* parameters;
        at::Tensor gradient;
    };
    std::vector<Shard> shards() const;

    double seconds_waited() const;

  private:
    struct Flat {
        FlatParameters* parameters;
        std::vector<size_t> indices;  // of its parameters in parameters_
        at::Tensor sum;               // [shard]: fp32, or int64 in the order-independent mode
        at::Tensor gradient;          // [shard] fp32; is `sum` but in the order-independent mode
        bool has_sum = false;         // of this step
        at::Tensor whole;             // fp32 [elements], of the micro-batch under way; undefined: nothing was added yet
        std::vector<bool> written;    // parameters in `whole`; the others are not initialised
        at::Tensor sent, received;
        Pending pending;
    };
    struct Place {
        Flat* flat;
        size_t index;  // of the parameter in its flat buffer
    };

    at::Tensor view(const Place& place) const;
    void open(Flat& flat);
    void send(Flat& flat);
    void finish(Flat& flat);
    void finish_all();
    at::Tensor to_fixed(Flat& flat);

    ShardedModel& model_;
    std::vector<Parameter*> parameters_;
    bool order_independent_;
    double largest_;  // of a micro-batch's gradients, order-independent mode
    std::deque<Flat> flats_;
    std::map<const Parameter*, Place> places_;
    at::Tensor own_;  // 0, or NaN if this rank's own gradients are not finite; not looked at before it is needed
    at::Tensor bad_;  // int64, for each parameter: its micro-batches that are not finite, order-independent mode
    std::unique_ptr<TensorCollectives> reductions_, replicas_, all_;
};

}  // namespace amalgam
