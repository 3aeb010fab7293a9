// SPDX-License-Identifier: Apache-2.0
#include "optimizer/gradients.h"

#include <ATen/ATen.h>

#include <cmath>

#include "optimizer/exact_norm.h"
#include "optimizer/fixed_point.h"
#include "optimizer/gradient_norm.h"

namespace amalgam {
Gradients::Gradients(const std::vector<Parameter*>& parameters, at::Device device, bool order_independent,
                     int64_t micro_batches)
    : parameters_(parameters), largest_(fixed_point_range / double(micro_batches)) {
    int64_t total = 0;
    for (const Parameter* p : parameters_) total += p->elements();
    flat_ = at::zeros({total}, at::TensorOptions(device).dtype(at::kFloat));
    const int64_t counts = int64_t(parameters_.size());
    if (order_independent) fixed_ = at::zeros({total + counts}, at::TensorOptions(device).dtype(at::kLong));
    int64_t first = 0;
    for (const Parameter* p : parameters_) {
        views_[p].gradient = flat_.narrow(0, first, p->elements()).view(p->shape);
        first += p->elements();
    }
}

void Gradients::clear() {
    for (auto& [parameter, view] : views_) view.written = false;
    if (fixed_.defined()) fixed_.zero_();
}

void Gradients::settle() {
    for (auto& [parameter, view] : views_) {
        if (!view.written) view.gradient.zero_();
        view.written = true;
    }
}

at::Tensor Gradients::of(const Parameter& parameter) {
    const auto found = views_.find(&parameter);
    if (found == views_.end()) return {};
    View& view = found->second;
    if (!view.written) view.gradient.zero_();
    view.written = true;
    return view.gradient;
}

void Gradients::add(const Parameter& parameter, const at::Tensor& gradient) {
    if (!gradient.defined()) return;
    View& view = views_.at(&parameter);
    if (view.written)
        view.gradient.add_(gradient);
    else
        view.gradient.copy_(gradient);
    view.written = true;
}

void Gradients::commit() {
    if (!fixed_.defined()) return;
    settle();
    const FixedPoint sum = to_fixed_point(flat_, largest_);
    fixed_.narrow(0, 0, flat_.numel()).add_(sum.values);
    if (sum.out_of_range.any().item<bool>()) count(sum.out_of_range);
    flat_.zero_();
}

void Gradients::count(const at::Tensor& bad) {
    int64_t first = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        const int64_t elements = parameters_[i]->elements();
        const at::Tensor any = bad.narrow(0, first, elements).any().to(at::kLong);
        fixed_.select(0, flat_.numel() + int64_t(i)).add_(any);
        first += elements;
    }
}

void Gradients::reduce(TensorCollectives& group) {
    settle();
    if (!fixed_.defined()) {
        own_ = flat_.sum() * 0.0;  // NaN if the sum is not finite; not looked at here, which would wait for a device
        return group.all_reduce(flat_);
    }
    own_ = fixed_.narrow(0, flat_.numel(), int64_t(parameters_.size())).sum();
    group.all_reduce(fixed_);
    flat_.copy_(from_fixed_point(fixed_.narrow(0, 0, flat_.numel())));
    const at::Tensor counts = fixed_.narrow(0, flat_.numel(), int64_t(parameters_.size())).cpu();
    for (size_t i = 0; i < parameters_.size(); ++i)
        if (counts.const_data_ptr<int64_t>()[i] > 0) views_.at(parameters_[i]).gradient.fill_(NAN);
}

bool Gradients::own_finite() const {
    return !own_.defined() || own_.to(at::kDouble).item<double>() == 0.0;
}

double Gradients::norm(int threads) {
    settle();
    if (fixed_.defined()) {
        ExactNorm norm;
        norm.add(flat_);
        return norm.value();
    }
    return std::sqrt(sum_of_squares({flat_}, threads));
}

std::string Gradients::not_finite() {
    settle();
    for (const Parameter* p : parameters_)
        if (!views_.at(p).gradient.isfinite().all().item<bool>()) return p->name;
    return {};
}

}  // namespace amalgam
