// SPDX-License-Identifier: Apache-2.0
#include "objectives/alignment.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/own_piece.h"
#include "operations/kernel_calls.h"
#include "operations/kernel_views.h"
#include "system/error.h"

namespace amalgam {

Alignment::Alignment(CausalLM& student, CausalLM& teacher, AlignmentLoss loss, ContextGroup* context)
    : student_(student), teacher_(teacher), loss_(loss), context_(context), by_layer_(teacher.config().layers) {
    for (Parameter& p : student_.parameters().all())
        if (trains(student_.spec(), p)) by_layer_[p.layer].push_back(&p);
}

bool Alignment::trains(const ModelSpec& student, const Parameter& parameter) {
    return parameter.in_mixer && find_mixer(student.layout.at(size_t(parameter.layer))).is_linear();
}

std::vector<Parameter*> Alignment::trained() {
    std::vector<Parameter*> all;
    for (const auto& parameters : by_layer_) all.insert(all.end(), parameters.begin(), parameters.end());
    return all;
}

at::Tensor Alignment::loss_by_kernel(const at::Tensor& teacher, const at::Tensor& student, double weight,
                                     at::Tensor& gradient) const {
    const at::Tensor s = collapsible(student, 1), t = collapsible(teacher, 1);
    const int64_t tokens = s.numel() / s.size(-1);
    gradient = at::empty(s.sizes(), s.options());
    const at::Tensor loss = at::empty({tokens}, s.options().dtype(at::kFloat));
    kernels::AlignmentLoss call{};
    call.type = element_type(s);
    call.rows = tokens;
    call.width = s.size(-1);
    call.distance = loss_ == AlignmentLoss::norm ? kernels::Distance::norm : kernels::Distance::relative;
    call.gradient_weight = float(weight / double(tokens));
    call.student = const_rows(s, 1);
    call.teacher = const_rows(t, 1);
    call.gradient = rows(gradient, 1);
    call.loss = loss.data_ptr<float>();
    run(s, call);
    return loss.sum(at::kDouble) / double(tokens);
}

at::Tensor Alignment::loss_and_gradient(const at::Tensor& teacher, const at::Tensor& student, double weight,
                                        at::Tensor& gradient) const {
    if (runs_on_kernels(student) && teacher.scalar_type() == student.scalar_type())
        return loss_by_kernel(teacher, student, weight, gradient);
    const at::Tensor target = teacher.to(at::kFloat), difference = student.to(at::kFloat) - target;
    const double tokens = double(difference.numel() / difference.size(-1));
    if (loss_ == AlignmentLoss::norm) {
        const double scale = 1.0 / std::sqrt(double(difference.size(-1)));
        const at::Tensor norm = at::linalg_vector_norm(difference, 2, {-1}, true);
        gradient = (difference * (scale * weight / tokens) / norm.clamp_min(1e-12)).to(student.scalar_type());
        return norm.sum(at::kDouble) * (scale / tokens);
    }
    const at::Tensor inverse = target.square().sum(-1, true).clamp_min(1e-12).reciprocal();
    gradient = (difference * inverse * (2.0 * weight / tokens)).to(student.scalar_type());
    return (difference.square().sum(-1, true) * inverse).sum(at::kDouble) / tokens;
}

at::Tensor Alignment::train_layer(const Block& block, int64_t layer, const at::Tensor& input, const at::Tensor& target,
                                  const SequencePlaces& places, double weight, GradientSink& gradients) const {
    const at::Tensor output = block.mixer().forward(input, places);
    at::Tensor d_output;
    const at::Tensor loss = loss_and_gradient(target, output.detach(), weight, d_output);
    std::vector<at::Tensor> inputs;
    for (const Parameter* p : by_layer_[layer]) inputs.push_back(p->compute);
    const auto found = torch::autograd::grad({output}, inputs, {d_output});
    for (size_t i = 0; i < inputs.size(); ++i) gradients.add(*by_layer_[layer][i], found[i]);
    return loss;
}

void Alignment::accumulate(const TokenBatch& batch, int64_t, double whole_weight, GradientSink& gradients,
                           std::vector<double>& losses) {
    const int64_t layers = teacher_.config().layers;
    const SequencePlaces places = teacher_.places(batch, context_);
    const at::Tensor own = own_piece(batch.tokens, context_);
    const double weight = whole_weight * double(own.size(1)) / double(batch.time());
    at::Tensor x = HeldOuterWeights(teacher_, 0).embed(own);
    std::vector<at::Tensor> layer_losses(static_cast<size_t>(layers));  // read at the end: reading waits for the device
    for (int64_t layer = 0; layer < layers; ++layer) {
        const int64_t next = layer + 1 < layers ? layer + 1 : WeightsOnDemand::nothing;
        const bool next_is_trained = layer + 1 < layers && !by_layer_[layer + 1].empty();
        at::Tensor input, target;
        {
            const HeldBlock block(teacher_, layer, next);
            if (x.size(0) > 0) {
                const at::NoGradGuard no_grad;
                input = block->mixer_input(x);
                target = block->mixer().forward(input, places);
                x = block->finish(x, target);
            }
        }
        if (by_layer_[layer].empty()) continue;
        {
            const HeldBlock block(student_, layer, next_is_trained ? next : WeightsOnDemand::nothing);
            // The mean over layers is what the reference trains; it only matters to clipping.
            if (x.size(0) > 0)
                layer_losses[size_t(layer)] =
                    train_layer(*block, layer, input, target, places, weight / double(layers), gradients);
        }
        gradients.complete(layer);
    }
    for (size_t layer = 0; layer < layer_losses.size(); ++layer) {
        if (!layer_losses[layer].defined()) continue;
        const double loss = layer_losses[layer].item<double>();
        losses[0] += weight * loss / double(layers);
        losses[1 + layer] += weight * loss;
    }
}

}  // namespace amalgam
