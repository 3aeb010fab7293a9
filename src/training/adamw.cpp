// SPDX-License-Identifier: Apache-2.0
#include "training/adamw.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "kernels/adamw/adamw.h"

namespace amalgam {

AdamW::AdamW(const std::vector<Parameter*>& parameters, const OptimizerJob& options) : options_(options) {
    for (Parameter* p : parameters) moments_.push_back({p, at::zeros_like(p->master), at::zeros_like(p->master)});
}

void AdamW::step(Gradients& gradients, double rate_factor, double gradient_factor, int threads) {
    ++steps_;
    const auto rate = [&](ParameterGroup group) {
        return rate_factor * (group == ParameterGroup::mixer ? options_.learning_rate : options_.learning_rate_rest);
    };
    if (!gradients.flat().device().is_cpu()) {
        for (const ParameterGroup group : {ParameterGroup::mixer, ParameterGroup::rest})
            step_on_device(group, gradients, rate(group), gradient_factor);
        return;
    }
    for (Moments& m : moments_) {
        Parameter& p = *m.parameter;
        const at::Tensor gradient = gradients.of(p);
        kernels::AdamwStep call;
        call.count = p.elements();
        call.step = steps_;
        call.learning_rate = rate(p.group);
        call.beta1 = options_.beta1;
        call.beta2 = options_.beta2;
        call.epsilon = options_.epsilon;
        call.weight_decay = options_.weight_decay;
        call.gradient_multiplier = gradient_factor;
        call.gradient = gradient.const_data_ptr<float>();
        call.master = p.master.data_ptr<float>();
        call.exp_avg = m.exp_avg.data_ptr<float>();
        call.exp_avg_sq = m.exp_avg_sq.data_ptr<float>();
        if (p.compute.scalar_type() == at::kBFloat16) call.bfloat16_copy = p.compute.data_ptr();
        kernels::adamw_step(call, threads);
    }
}

void AdamW::step_on_device(ParameterGroup group, Gradients& gradients, double rate, double gradient_factor) {
    std::vector<at::Tensor> masters, grads, exp_avgs, exp_avg_sqs, wide, narrow;
    for (Moments& m : moments_) {
        Parameter& p = *m.parameter;
        if (p.group != group) continue;
        masters.push_back(p.master);
        grads.push_back(gradients.of(p));
        exp_avgs.push_back(m.exp_avg);
        exp_avg_sqs.push_back(m.exp_avg_sq);
        if (p.compute.scalar_type() == at::kFloat) continue;
        wide.push_back(p.master);
        narrow.push_back(p.compute.detach());
    }
    if (masters.empty()) return;
    const auto scalar = masters[0].options();
    const std::vector<at::Tensor> steps(masters.size(), at::full({}, double(steps_), scalar));
    // LibTorch divides the gradients by grad_scale.
    at::_fused_adamw_(masters, grads, exp_avgs, exp_avg_sqs, {}, steps, rate, options_.beta1, options_.beta2,
                      options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false,
                      at::full({}, 1.0 / gradient_factor, scalar));
    if (!narrow.empty()) at::_foreach_copy_(narrow, wide);
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
    if (step < options.warmup_steps) return double(step + 1) / double(options.warmup_steps);
    if (options.schedule == "constant") return 1.0;
    const double progress =
        double(step - options.warmup_steps) / double(std::max<int64_t>(1, steps - options.warmup_steps));
    const double falling =
        options.schedule == "cosine" ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
    return options.final_fraction + (1.0 - options.final_fraction) * falling;
}

}  // namespace amalgam
