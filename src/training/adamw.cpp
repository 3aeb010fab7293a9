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

void AdamW::step(const Gradients& gradients, double rate_factor, double gradient_factor, int threads) {
    ++steps_;
    for (Moments& m : moments_) {
        Parameter& p = *m.parameter;
        const double rate =
            rate_factor * (p.group == ParameterGroup::mixer ? options_.learning_rate : options_.learning_rate_rest);
        const at::Tensor gradient = gradients.of(p);
        if (!p.master.device().is_cpu()) {
            step_on_device(m, gradient, rate, gradient_factor);
            continue;
        }
        kernels::AdamwStep call;
        call.count = p.elements();
        call.step = steps_;
        call.learning_rate = rate;
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

void AdamW::step_on_device(Moments& m, const at::Tensor& gradient, double rate, double gradient_factor) {
    Parameter& p = *m.parameter;
    const at::Tensor g = gradient * gradient_factor;
    m.exp_avg.lerp_(g, 1.0 - options_.beta1);
    m.exp_avg_sq.mul_(options_.beta2).addcmul_(g, g, 1.0 - options_.beta2);
    const double bias1 = 1.0 - std::pow(options_.beta1, double(steps_)),
                 bias2 = 1.0 - std::pow(options_.beta2, double(steps_));
    p.master.mul_(1.0 - rate * options_.weight_decay);
    p.master.addcdiv_(m.exp_avg, (m.exp_avg_sq / bias2).sqrt_().add_(options_.epsilon), -rate / bias1);
    if (p.compute.scalar_type() != at::kFloat) p.compute.detach().copy_(p.master);
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
