// SPDX-License-Identifier: Apache-2.0
#include "optimizer/trained_weights.h"

#include "optimizer/adamw.h"
#include "optimizer/checkpoint_tensors.h"
#include "optimizer/gradients.h"
#include "optimizer/sharded_weights.h"

namespace amalgam {
namespace {

class WholeWeights : public TrainedWeights {
  public:
    WholeWeights(CausalLM& model, const std::vector<Parameter*>& parameters, const Communicator& group,
                 const TrainedWeightsSetup& setup)
        : model_(model),
          group_(group),
          gradients_(parameters, model.device(), setup.order_independent, setup.micro_batches),
          optimizer_(parameters, setup.optimizer),
          collectives_(make_tensor_collectives(group, model.device())) {}

    void begin_step() override { gradients_.clear(); }
    GradientSink& gradients() override { return gradients_; }
    void end_micro_batch() override { gradients_.commit(); }
    void reduce() override { gradients_.reduce(*collectives_); }
    double norm(int threads) override { return gradients_.norm(threads); }
    std::string not_finite() override { return gradients_.not_finite(); }
    bool own_finite() const override { return gradients_.own_finite(); }
    void update(double rate_factor, double gradient_factor, int threads) override {
        optimizer_.step(gradients_, rate_factor, gradient_factor, threads);
    }

    int64_t updates() const override { return optimizer_.steps(); }
    std::vector<TensorPiece> pieces(bool moments) override {
        return even_pieces(checkpoint_tensors(model_, moments ? &optimizer_ : nullptr), group_.rank(), group_.size());
    }
    void load(const Checkpoint& checkpoint) override {
        checkpoint.read_replicas(checkpoint_tensors(model_, &optimizer_), group_);
        model_.parameters().refresh_compute();
        optimizer_.set_steps(*checkpoint.optimizer_steps());
    }
    double seconds_waited() const override { return collectives_->seconds_waited(); }

  private:
    CausalLM& model_;
    Communicator group_;
    Gradients gradients_;
    AdamW optimizer_;
    std::unique_ptr<TensorCollectives> collectives_;
};

}  // namespace

std::unique_ptr<TrainedWeights> make_trained_weights(CausalLM& model, ShardedModel* shards,
                                                     const std::vector<Parameter*>& parameters,
                                                     const Communicator& group, const TrainedWeightsSetup& setup) {
    if (shards) return make_sharded_weights(*shards, parameters, setup);
    return std::make_unique<WholeWeights>(model, parameters, group, setup);
}

}  // namespace amalgam
