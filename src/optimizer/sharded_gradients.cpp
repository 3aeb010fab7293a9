// SPDX-License-Identifier: Apache-2.0
#include "optimizer/sharded_gradients.h"

#include <ATen/ATen.h>

#include <cmath>

#include "optimizer/exact_norm.h"
#include "optimizer/fixed_point.h"
#include "optimizer/gradient_norm.h"
#include "system/error.h"

namespace amalgam {

ShardedGradients::ShardedGradients(ShardedModel& model, const std::vector<Parameter*>& parameters,
                                   bool order_independent, int64_t micro_batches)
    : model_(model),
      parameters_(parameters),
      order_independent_(order_independent),
      largest_(fixed_point_range / double(micro_batches)),
      reductions_(make_tensor_collectives(model.groups().shards, model.model().device())),
      replicas_(make_tensor_collectives(model.groups().replicas, model.model().device())),
      all_(make_tensor_collectives(model.groups().all, model.model().device())) {
    const auto options = at::TensorOptions(model_.model().device());
    std::map<const FlatParameters*, Flat*> by_parameters;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        FlatParameters& of = model_.flat_of(*parameters_[i]);
        Flat*& flat = by_parameters[&of];
        if (!flat) {
            flat = &flats_.emplace_back();
            flat->parameters = &of;
            flat->sum = at::zeros({of.shard_elements()}, options.dtype(order_independent ? at::kLong : at::kFloat));
            flat->gradient =
                order_independent ? at::zeros({of.shard_elements()}, options.dtype(at::kFloat)) : flat->sum;
            flat->indices.resize(of.parameters().size());
        }
        for (size_t j = 0; j < of.parameters().size(); ++j)
            if (of.parameters()[j] == parameters_[i]) {
                flat->indices[j] = i;
                places_[parameters_[i]] = {flat, j};
            }
    }
    for (const Flat& flat : flats_)
        for (const Parameter* p : flat.parameters->parameters())
            if (!places_.contains(p)) throw Error(text(p->name, ": not trained, but sharded with parameters that are"));
    bad_ = at::zeros({int64_t(parameters_.size())}, at::kLong);
    own_ = at::zeros({}, options.dtype(at::kFloat));
}

void ShardedGradients::clear() {
    for (Flat& flat : flats_) flat.has_sum = false;
    bad_.zero_();
    own_.zero_();
}

at::Tensor ShardedGradients::view(const Place& place) const {
    const Parameter& p = *place.flat->parameters->parameters()[place.index];
    return place.flat->whole.narrow(0, place.flat->parameters->first_of(p), p.elements()).view(p.shape);
}

void ShardedGradients::open(Flat& flat) {
    if (flat.whole.defined()) return;
    flat.whole = at::empty({flat.parameters->elements()}, flat.gradient.options());
    flat.written.assign(flat.parameters->parameters().size(), false);
}

at::Tensor ShardedGradients::of(const Parameter& parameter) {
    const auto found = places_.find(&parameter);
    if (found == places_.end()) return {};
    const Place place = found->second;
    open(*place.flat);
    at::Tensor gradient = view(place);
    if (!place.flat->written[place.index]) gradient.zero_();
    place.flat->written[place.index] = true;
    return gradient;
}

void ShardedGradients::add(const Parameter& parameter, const at::Tensor& gradient) {
    if (!gradient.defined()) return;
    const Place place = places_.at(&parameter);
    open(*place.flat);
    if (place.flat->written[place.index])
        view(place).add_(gradient);
    else
        view(place).copy_(gradient);
    place.flat->written[place.index] = true;
}

void ShardedGradients::complete(int64_t layer) {
    // The layer before this one had the time of this layer's computation.
    finish_all();
    for (Flat& flat : flats_)
        if (flat.parameters->parameters().front()->layer == layer) send(flat);
}

void ShardedGradients::send(Flat& flat) {
    open(flat);
    const auto& parameters = flat.parameters->parameters();
    int64_t end = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
        if (!flat.written[i]) view({&flat, i}).zero_();
        end = flat.parameters->first_of(*parameters[i]) + parameters[i]->elements();
    }
    flat.whole.narrow(0, end, flat.whole.numel() - end).zero_();
    own_.add_(flat.whole.sum() * 0.0);
    if (order_independent_)
        flat.sent = to_fixed(flat);
    else
        flat.sent = model_.options().reduce_in_bfloat16 ? flat.whole.to(at::kBFloat16) : flat.whole;
    flat.whole.reset();
    const bool directly = !flat.has_sum && flat.sent.scalar_type() == flat.sum.scalar_type();
    flat.received = directly ? flat.sum : at::empty(flat.sum.sizes(), flat.sent.options());
    flat.pending = reductions_->reduce_scatter_into(flat.received, flat.sent);
}

at::Tensor ShardedGradients::to_fixed(Flat& flat) {
    const FixedPoint fixed = to_fixed_point(flat.whole, largest_);
    if (fixed.out_of_range.any().item<bool>())
        for (size_t i = 0; i < flat.indices.size(); ++i) {
            const Parameter& p = *flat.parameters->parameters()[i];
            const at::Tensor piece = fixed.out_of_range.narrow(0, flat.parameters->first_of(p), p.elements());
            bad_.data_ptr<int64_t>()[flat.indices[i]] += piece.any().item<bool>() ? 1 : 0;
        }
    return fixed.values;
}

void ShardedGradients::finish(Flat& flat) {
    if (!flat.sent.defined()) return;
    flat.pending.wait();
    if (!flat.has_sum && !flat.received.is_same(flat.sum))
        flat.sum.copy_(flat.received);
    else if (flat.has_sum)
        flat.sum.add_(flat.received);
    flat.has_sum = true;
    flat.sent.reset();
    flat.received.reset();
}

void ShardedGradients::finish_all() {
    for (Flat& flat : flats_) finish(flat);
}

void ShardedGradients::reduce() {
    finish_all();
    std::vector<Pending> pending;
    for (Flat& flat : flats_) pending.push_back(replicas_->start_all_reduce(flat.sum));
    for (Pending& p : pending) p.wait();
    if (!order_independent_) return;
    for (Flat& flat : flats_) flat.gradient.copy_(from_fixed_point(flat.sum));
    at::Tensor bad = bad_.to(model_.model().device());
    all_->all_reduce(bad);
    bad_.copy_(bad);
    for (Flat& flat : flats_)
        for (const ShardPiece& piece : flat.parameters->pieces()) {
            const size_t index = flat.indices[places_.at(piece.parameter).index];
            if (bad_.data_ptr<int64_t>()[index] > 0) flat.gradient.narrow(0, piece.in_shard, piece.count).fill_(NAN);
        }
}

double ShardedGradients::norm(int threads) {
    if (order_independent_) {
        ExactNorm norm;
        for (const Flat& flat : flats_) norm.add(flat.gradient);
        norm.reduce(*reductions_, model_.model().device());
        return norm.value();
    }
    std::vector<at::Tensor> gradients;
    for (const Flat& flat : flats_) gradients.push_back(flat.gradient);
    return std::sqrt(model_.groups().shards.sum(sum_of_squares(gradients, threads)));
}

std::string ShardedGradients::not_finite() {
    const auto none = int64_t(parameters_.size());
    int64_t first = none;
    for (const Flat& flat : flats_)
        for (const ShardPiece& piece : flat.parameters->pieces())
            if (!flat.gradient.narrow(0, piece.in_shard, piece.count).isfinite().all().item<bool>()) {
                const Place place = places_.at(piece.parameter);
                first = std::min(first, int64_t(flat.indices[place.index]));
            }
    first = -model_.groups().all.max(-first);
    return first == none ? "" : parameters_[size_t(first)]->name;
}

bool ShardedGradients::own_finite() const {
    return own_.item<double>() == 0.0;
}

std::vector<ShardedGradients::Shard> ShardedGradients::shards() const {
    std::vector<Shard> result;
    for (const Flat& flat : flats_) result.push_back({flat.parameters, flat.gradient});
    return result;
}

double ShardedGradients::seconds_waited() const {
    return reductions_->seconds_waited() + replicas_->seconds_waited();
}

}  // namespace amalgam
