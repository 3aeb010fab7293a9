// SPDX-License-Identifier: Apache-2.0
#include "optimizer/sharded_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>

#include "checkpoints/sharded_pieces.h"
#include "optimizer/adamw.h"
#include "optimizer/sharded_gradients.h"

namespace amalgam {
namespace {

class ShardedWeights : public TrainedWeights {
  public:
    ShardedWeights(ShardedModel& model, const std::vector<Parameter*>& parameters, const TrainedWeightsSetup& setup)
        : model_(model),
          options_(setup.optimizer),
          trained_(parameters),
          gradients_(model, parameters, setup.order_independent, setup.micro_batches) {
        for (const auto& shard : gradients_.shards())
            moments_.push_back({shard.parameters, at::zeros_like(shard.gradient), at::zeros_like(shard.gradient)});
    }

    void begin_step() override { gradients_.clear(); }
    GradientSink& gradients() override { return gradients_; }
    void end_micro_batch() override {}
    void reduce() override { gradients_.reduce(); }
    double norm(int threads) override { return gradients_.norm(threads); }
    std::string not_finite() override { return gradients_.not_finite(); }
    bool own_finite() const override { return gradients_.own_finite(); }

    void update(double rate_factor, double gradient_factor, int threads) override {
        std::vector<AdamWTensors> tensors;
        const auto shards = gradients_.shards();
        for (size_t i = 0; i < shards.size(); ++i)
            for (const ShardPiece& piece : shards[i].parameters->pieces()) {
                const auto piece_of = [&](const at::Tensor& t) { return t.narrow(0, piece.in_shard, piece.count); };
                tensors.push_back({piece.parameter->group, piece_of(shards[i].parameters->shard()),
                                   piece_of(shards[i].gradient), piece_of(moments_[i].exp_avg),
                                   piece_of(moments_[i].exp_avg_sq), at::Tensor()});
            }
        ++updates_;
        adamw_update(tensors, options_, updates_, rate_factor, gradient_factor, threads);
        model_.weights_changed();
    }

    int64_t updates() const override { return updates_; }

    std::vector<TensorPiece> pieces(bool moments) override {
        // Replicas have the same shards: one of them saves.
        return pieces(moments, model_.groups().replicas.is_root());
    }

    void load(const Checkpoint& checkpoint) override {
        const std::vector<TensorPiece> own = pieces(true, true);
        std::vector<TensorPiece> read = own;  // on the CPU
        for (TensorPiece& piece : read)
            if (!piece.values.is_cpu()) piece.values = at::empty(piece.values.sizes(), at::kFloat);
        std::exception_ptr failure;  // of one group of shards, but all of them must know
        try {
            checkpoint.read(read, model_.groups().shards);
        } catch (...) {
            failure = std::current_exception();
        }
        model_.groups().all.together([&] {
            if (failure) std::rethrow_exception(failure);
        });
        for (size_t i = 0; i < own.size(); ++i)
            if (!own[i].values.is_cpu()) own[i].values.copy_(read[i].values);
        updates_ = *checkpoint.optimizer_steps();
        model_.weights_changed();
    }

    double seconds_waited() const override { return model_.seconds_waited() + gradients_.seconds_waited(); }

  private:
    struct Moments {
        const FlatParameters* parameters;
        at::Tensor exp_avg, exp_avg_sq;  // [shard]
    };

    /// All named tensors in the order of the model's parameters; `mine`: with this rank's elements, else with none.
    std::vector<TensorPiece> pieces(bool moments, bool mine) {
        std::vector<TensorPiece> result = weight_pieces(model_, mine);
        if (!moments) return result;
        for (const Parameter* p : trained_) {
            const FlatParameters& flat = model_.flat_of(*p);
            const auto found =
                std::find_if(moments_.begin(), moments_.end(), [&](const Moments& m) { return m.parameters == &flat; });
            add_shard_pieces("/optimizer/exp_avg/", *p, flat, found->exp_avg, mine, result);
            add_shard_pieces("/optimizer/exp_avg_sq/", *p, flat, found->exp_avg_sq, mine, result);
        }
        return result;
    }

    ShardedModel& model_;
    OptimizerJob options_;
    std::vector<Parameter*> trained_;
    ShardedGradients gradients_;
    std::vector<Moments> moments_;
    int64_t updates_ = 0;
};

}  // namespace

std::unique_ptr<TrainedWeights> make_sharded_weights(ShardedModel& shards, const std::vector<Parameter*>& parameters,
                                                     const TrainedWeightsSetup& setup) {
    return std::make_unique<ShardedWeights>(shards, parameters, setup);
}

}  // namespace amalgam
