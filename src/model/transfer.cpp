// SPDX-License-Identifier: Apache-2.0
#include "model/transfer.h"

#include <ATen/ATen.h>

#include "system/error.h"

namespace amalgam {
namespace {

at::Tensor drawn(const ParameterDeclaration& parameter, const RandomStream& random) {
    const auto& value = std::get<Drawn>(parameter.initial).value;
    at::Tensor t = at::empty(parameter.shape, at::kFloat);
    float* values = t.data_ptr<float>();
    for (int64_t i = 0; i < t.numel(); ++i) values[i] = float(value(random, i));
    return t;
}

}  // namespace

at::Tensor expand_key_value(const at::Tensor& weight, int64_t key_value_heads, int64_t query_heads,
                            KeyValueExpansion expansion) {
    const int64_t group = query_heads / key_value_heads;
    if (expansion == KeyValueExpansion::per_row) return weight.repeat_interleave(group, 0);
    const auto heads = weight.unflatten(0, {key_value_heads, weight.size(0) / key_value_heads});
    return heads.repeat_interleave(group, 0).flatten(0, 1);
}

TransferSource::TransferSource(const TensorSource& teacher, const ModelSpec& student, KeyValueExpansion expansion,
                               uint64_t seed)
    : teacher_(teacher), config_(student.config), expansion_(expansion), seed_(seed) {
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
        const MixerDeclaration& mixer = find_mixer(student.layout.at(size_t(layer)));
        for (const ParameterDeclaration& parameter : mixer.parameters(config_, student.options))
            declared_.emplace(layer_prefix(layer) + parameter.name, parameter);
    }
}

std::optional<at::Tensor> TransferSource::find(const std::string& name) const {
    const auto declared = declared_.find(name);
    if (declared == declared_.end()) return teacher_.find(name);
    const ParameterDeclaration& parameter = declared->second;
    const std::string prefix = name.substr(0, name.size() - parameter.name.size());  // "model.layers.N."
    if (const auto* copied = std::get_if<Copied>(&parameter.initial)) return teacher_.find(prefix + copied->from);
    if (const auto* expanded = std::get_if<Expanded>(&parameter.initial)) {
        const auto grouped = teacher_.find(prefix + expanded->from);
        if (!grouped) return grouped;
        return expand_key_value(*grouped, config_.key_value_heads, config_.query_heads, expansion_);
    }
    return drawn(parameter, RandomStream(seed_, name));
}

const LayerStart* find_start(const ModelSpec& student, const ModelSpec& trained, const std::string& where) {
    const std::string ours = linear_mixer(student.layout), theirs = linear_mixer(trained.layout);
    const auto refuse = [&](const std::string& why) {
        throw Error(text(where, ": layers of ", ours, " cannot start from it: ", why), ExitCode::bad_input);
    };
    if (ours == theirs) return nullptr;
    const LayerStart* found = nullptr;
    std::string known;
    for (const LayerStart& start : find_implementation(ours).starts) {
        if (start.mixer == theirs) found = &start;
        known += " " + start.mixer;
    }
    if (!found) refuse(text("its linear layers are ", theirs.empty() ? "none" : theirs, " (possible:", known, ")"));
    if (const auto why = found->refusal(student, trained)) refuse(*why);
    return found;
}

ContinuedSource::ContinuedSource(const TransferSource& transferred, const ModelSpec& student,
                                 const TensorSource& trained, const ModelSpec& trained_spec)
    : transferred_(transferred), trained_(trained), start_(find_start(student, trained_spec, trained.where())) {}

std::optional<at::Tensor> ContinuedSource::find(const std::string& name) const {
    const size_t part = name.find("linear_attn.");
    if (part == std::string::npos || !start_) {
        const auto found = trained_.find(name);
        return found ? found : transferred_.find(name);
    }
    const auto transferred = transferred_.find(name);
    const std::string prefix = name.substr(0, part);
    // A layer that kept softmax attention starts as the teacher's does.
    if (!transferred || !trained_.find(prefix + "linear_attn.o_proj.weight")) return transferred;
    return start_->value(name.substr(part), *transferred, [&](const std::string& theirs) {
        const auto found = trained_.find(prefix + theirs);
        return found ? std::optional(found->to(at::kFloat)) : std::nullopt;
    });
}

}  // namespace amalgam
