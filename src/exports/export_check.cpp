// SPDX-License-Identifier: Apache-2.0
#include "exports/export_check.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "model/block.h"
#include "operations/operations.h"
#include "system/activity.h"
#include "system/error.h"
#include "system/random.h"

namespace amalgam {
namespace {

constexpr int64_t checked_tokens = 24;
constexpr double tolerance = 3e-4, rounding_factor = 4.0;
// Weights are narrowed as they are, and then some fall back to the teacher's, which bfloat16 holds: one rounding takes
// all that a training with small steps has learnt in them. Others are multiplied before, so that what bfloat16 holds
// exactly is rounded, too: here all are, by factors that are no powers of two.
constexpr double roundings[] = {1.0, 1.1, 1.3, 1.7};

at::Tensor tokens_to_check(int64_t vocabulary) {
    const RandomStream random(0, "export check");
    at::Tensor tokens = at::empty({1, checked_tokens}, at::kLong);
    for (int64_t i = 0; i < checked_tokens; ++i)
        tokens.data_ptr<int64_t>()[i] = int64_t(random.bits(uint64_t(i)) % uint64_t(vocabulary));
    return tokens;
}

at::Tensor narrowed(const at::Tensor& weight, double rounded_at) {
    if (rounded_at == 0.0) return weight.to(at::kFloat);
    return (weight.to(at::kFloat) * rounded_at).to(at::kBFloat16).to(at::kFloat) / rounded_at;
}

double largest(const at::Tensor& t) {
    return t.abs().max().item<double>();
}

}  // namespace

at::Tensor logits_block_by_block(const TensorSource& student, const ModelSpec& spec, const at::Tensor& tokens,
                                 double rounded_at) {
    const ModelConfig& c = spec.config;
    const at::NoGradGuard no_grad;
    const auto matrix = [&](const char* name) {
        return narrowed(find_tensor(name, {c.vocabulary_size, c.hidden_size}, {&student}), rounded_at);
    };
    const SequencePlaces places = {rotary_tables(c.rope, c.head_dim, 0, tokens.size(1), at::kCPU)};
    at::Tensor x = at::embedding(matrix("model.embed_tokens.weight"), tokens);
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        ParameterStore store;
        const Block block(spec, layer, store);
        store.allocate(at::kCPU, at::kFloat, /*trainable=*/false);
        store.for_each_named([&](const std::string& name, at::Tensor t, Parameter& parameter) {
            t.copy_(narrowed(find_tensor(name, t.sizes(), {&student}), parameter.full_precision ? 0.0 : rounded_at));
        });
        x = block.forward(x, places);
        mark_progress();
    }
    x = rms_norm(x, find_tensor("model.norm.weight", {c.hidden_size}, {&student}).to(at::kFloat), c.rms_norm_eps);
    return at::linear(x, matrix(c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight"));
}

void expect_same_logits(const TensorSource& student, const ModelSpec& spec, ExportPrecision precision,
                        ExportReader reader, const TensorSource& written, const nlohmann::json& config) {
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_to_check(spec.config.vocabulary_size);
    const at::Tensor expected = logits_block_by_block(student, spec, tokens);
    const double scale = largest(expected), found = largest(reader(written, config, spec, tokens) - expected);
    double allowed = tolerance * scale;
    if (precision == ExportPrecision::bfloat16) {
        double most = 0.0;
        for (const double factor : roundings)
            most = std::max(most, largest(logits_block_by_block(student, spec, tokens, factor) - expected));
        allowed += rounding_factor * most;
    }
    if (found <= allowed) return;  // false for NaN
    throw Error(text("export: logits of the written model differ from the student's by ", found, " where ", allowed,
                     " is allowed and the largest is ", scale,
                     " (it would be another model; nothing was published). The checkpoint is whole: keep it, or write "
                     "another format or precision with `amalgam export`"));
}

}  // namespace amalgam
