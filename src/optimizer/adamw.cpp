// SPDX-License-Identifier: Apache-2.0
#include "optimizer/adamw.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "job/training_plan.h"
#include "kernels/adamw/adamw.h"
#ifdef AMALGAM_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace amalgam {

namespace {

double learning_rate(const OptimizerJob& options, ParameterGroup group) {
    return group == ParameterGroup::mixer ? options.learning_rate.value() : options.learning_rate_rest.value();
}

void update_on_cpu(const AdamWTensors& t, const OptimizerJob& options, int64_t step, double rate_factor,
                   double gradient_factor, int threads) {
    kernels::AdamwStep call;
    call.count = t.master.numel();
    call.step = step;
    call.learning_rate = rate_factor * learning_rate(options, t.group);
    call.beta1 = options.beta1;
    call.beta2 = options.beta2;
    call.epsilon = options.epsilon;
    call.weight_decay = options.weight_decay;
    call.gradient_multiplier = gradient_factor;
    call.gradient = t.gradient.const_data_ptr<float>();
    call.master = t.master.data_ptr<float>();
    call.exp_avg = t.exp_avg.data_ptr<float>();
    call.exp_avg_sq = t.exp_avg_sq.data_ptr<float>();
    if (t.compute.defined()) call.bfloat16_copy = t.compute.data_ptr();
    kernels::adamw_step(call, threads);
}

#ifdef AMALGAM_CUDA
/// All tensors in one launch for every few hundred of them.
void update_on_device(const std::vector<AdamWTensors>& tensors, const OptimizerJob& options, int64_t step,
                      double rate_factor, double gradient_factor) {
    kernels::AdamwStep settings;
    settings.step = step;
    settings.beta1 = options.beta1;
    settings.beta2 = options.beta2;
    settings.epsilon = options.epsilon;
    settings.weight_decay = options.weight_decay;
    settings.gradient_multiplier = gradient_factor;
    std::vector<kernels::cuda::AdamwParameter> parameters;
    parameters.reserve(tensors.size());
    for (const AdamWTensors& t : tensors)
        parameters.push_back({t.master.numel(), rate_factor * learning_rate(options, t.group),
                              t.gradient.const_data_ptr<float>(), t.master.data_ptr<float>(),
                              t.exp_avg.data_ptr<float>(), t.exp_avg_sq.data_ptr<float>(),
                              t.compute.defined() ? t.compute.data_ptr() : nullptr});
    kernels::cuda::adamw_step(settings, parameters, {},
                              c10::cuda::getCurrentCUDAStream(tensors[0].master.device().index()).stream());
}
#endif

}  // namespace

void adamw_update(const std::vector<AdamWTensors>& tensors, const OptimizerJob& options, int64_t step,
                  double rate_factor, double gradient_factor, int threads) {
    if (tensors.empty()) return;
    if (tensors[0].master.device().is_cpu()) {
        for (const AdamWTensors& t : tensors) update_on_cpu(t, options, step, rate_factor, gradient_factor, threads);
        return;
    }
#ifdef AMALGAM_CUDA
    update_on_device(tensors, options, step, rate_factor, gradient_factor);
#endif
}

AdamW::AdamW(const std::vector<Parameter*>& parameters, const OptimizerJob& options) : options_(options) {
    for (Parameter* p : parameters) moments_.push_back({p, at::zeros_like(p->master), at::zeros_like(p->master)});
}

void AdamW::step(Gradients& gradients, double rate_factor, double gradient_factor, int threads) {
    std::vector<AdamWTensors> tensors;
    for (const Moments& m : moments_) {
        Parameter& p = *m.parameter;
        const bool narrow = p.compute.scalar_type() != at::kFloat;
        tensors.push_back(
            {p.group, p.master, gradients.of(p), m.exp_avg, m.exp_avg_sq, narrow ? p.compute.detach() : at::Tensor()});
    }
    adamw_update(tensors, options_, ++steps_, rate_factor, gradient_factor, threads);
}

void AdamW::for_each_moment(const std::function<void(const std::string&, at::Tensor, at::Tensor)>& visit) {
    for (Moments& m : moments_) {
        if (m.parameter->pieces.empty()) visit(m.parameter->name, m.exp_avg, m.exp_avg_sq);
        for (const Piece& piece : m.parameter->pieces)
            visit(piece.name, m.exp_avg.narrow(0, piece.first, piece.rows),
                  m.exp_avg_sq.narrow(0, piece.first, piece.rows));
    }
}

double schedule_factor(const OptimizerJob& options, int64_t step, int64_t steps) {
    const int64_t warmup = warmup_steps(options, steps);
    if (step < warmup) return double(step + 1) / double(warmup);
    if (options.schedule == Schedule::constant) return 1.0;
    int64_t begin = warmup;  // of the decay
    if (options.schedule == Schedule::warmup_stable_decay)
        begin = std::max(begin, steps - int64_t(std::llround(options.decay_fraction * double(steps))));
    if (step < begin) return 1.0;
    const double progress = double(step - begin) / double(std::max<int64_t>(1, steps - begin));
    const double falling =
        options.schedule == Schedule::cosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
    return options.final_fraction + (1.0 - options.final_fraction) * falling;
}

}  // namespace amalgam
