// SPDX-License-Identifier: Apache-2.0
#include "sharding/sharded_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>

#include "system/activity.h"
#include "system/error.h"

namespace amalgam {

ShardedModel::ShardedModel(CausalLM& model, bool trainable, const Communicator& group, const ShardingOptions& options,
                           const std::function<bool(const Parameter&)>& is_used)
    : model_(model),
      trainable_(trainable),
      options_(options),
      groups_(make_sharding_groups(options.strategy, group, options.ranks_per_node)),
      units_(size_t(1 + model.config().layers)),
      gathers_(make_tensor_collectives(groups_.shards, model.device())) {
    std::vector<at::ScalarType> types = {model.compute_type()};
    if (types[0] != at::kFloat) types.push_back(at::kFloat);
    for (int64_t layer = outside_blocks; layer < model.config().layers; ++layer)
        for (const bool used : {true, false})
            for (const at::ScalarType type : types) {
                std::vector<Parameter*> parameters;
                for (Parameter& p : model.parameters().all())
                    if (p.layer == layer && (!is_used || is_used(p)) == used &&
                        (p.full_precision ? at::kFloat : model.compute_type()) == type)
                        parameters.push_back(&p);
                if (parameters.empty()) continue;
                Unit& u = unit(layer);
                (used ? u.used : u.unused)
                    .push_back(std::make_unique<FlatParameters>(std::move(parameters), type, model.device(),
                                                                groups_.shards.size(), groups_.shards.rank(),
                                                                trainable));
            }
    model_.set_weights_on_demand(this);
}

ShardedModel::~ShardedModel() {
    model_.set_weights_on_demand(nullptr);
    if (std::uncaught_exceptions() > 0) {
        gathers_.reset();  // gives up what is under way
        return;
    }
    for (Unit& u : units_)
        for (Pending& pending : u.pending) {
            try {
                pending.wait();
            } catch (...) {  // nobody needs it any more
            }
        }
}

void ShardedModel::start_gathering(int64_t layer) {
    Unit& u = unit(layer);
    for (const auto& flat : u.used) {
        if (!flat->is_allocated() && layer >= 0 && flat == u.used.front()) ++blocks_gathered_;
        flat->allocate();
        at::Tensor own = flat->shard();
        if (own.scalar_type() != flat->data().scalar_type()) {
            own = flat->own_data();
            own.copy_(flat->shard());
        }
        u.pending.push_back(gathers_->all_gather_into(flat->data(), own));
    }
    most_blocks_gathered_ = std::max(most_blocks_gathered_, blocks_gathered_);
    u.state = State::on_the_way;
}

void ShardedModel::acquire(int64_t layer, int64_t next) {
    Unit& u = unit(layer);
    if (u.state == State::absent) start_gathering(layer);
    for (Pending& pending : u.pending) pending.wait();
    u.pending.clear();
    u.state = State::there;
    ++u.holds;
    if (next != nothing) prefetch(next);
}

void ShardedModel::prefetch(int64_t layer) {
    if (options_.gather_ahead && unit(layer).state == State::absent) start_gathering(layer);
}

void ShardedModel::release(int64_t layer) {
    Unit& u = unit(layer);
    if (--u.holds > 0 || stays_whole(layer)) return;
    for (const auto& flat : u.used) flat->release();
    u.state = State::absent;
    if (layer >= 0 && !u.used.empty()) --blocks_gathered_;
}

void ShardedModel::weights_changed() {
    for (Unit& u : units_) {
        for (Pending& pending : u.pending) pending.wait();
        u.pending.clear();
        u.state = State::absent;
    }
}

std::vector<FlatParameters*> ShardedModel::flats_of(int64_t layer) const {
    std::vector<FlatParameters*> found;
    const Unit& u = units_[size_t(layer + 1)];
    for (const auto* flats : {&u.used, &u.unused})
        for (const auto& flat : *flats) found.push_back(flat.get());
    return found;
}

std::vector<FlatParameters*> ShardedModel::flats() const {
    std::vector<FlatParameters*> found;
    for (int64_t layer = outside_blocks; layer + 1 < int64_t(units_.size()); ++layer)
        for (FlatParameters* flat : flats_of(layer)) found.push_back(flat);
    return found;
}

FlatParameters& ShardedModel::flat_of(const Parameter& parameter) const {
    for (FlatParameters* flat : flats_of(parameter.layer)) {
        const auto& all = flat->parameters();
        if (std::find(all.begin(), all.end(), &parameter) != all.end()) return *flat;
    }
    throw Error(text(parameter.name, ": is not sharded"));
}

void load_weights(ShardedModel& shards, const std::vector<const TensorSource*>& sources) {
    for (Parameter& p : shards.model().parameters().all()) {
        const FlatParameters& flat = shards.flat_of(p);
        const ShardPiece piece = flat.piece_of(p);
        for_each_named_piece(p, [&](const std::string& name, const std::vector<int64_t>& shape, int64_t first) {
            const at::Tensor whole = find_tensor(name, shape, sources).flatten();
            const int64_t begin = std::max(first, piece.in_parameter),
                          end = std::min(first + whole.numel(), piece.in_parameter + piece.count);
            if (begin >= end) return;
            flat.shard()
                .narrow(0, piece.in_shard + begin - piece.in_parameter, end - begin)
                .copy_(whole.narrow(0, begin - first, end - begin));
        });
        mark_progress();
    }
    shards.weights_changed();
}

}  // namespace amalgam
