// SPDX-License-Identifier: Apache-2.0
#include "mixers/mixer.h"

#include <ATen/ATen.h>

namespace amalgam {

at::Tensor padding_of(const CacheChunk& chunk, int64_t time) {
    if (!chunk.counts.defined()) return {};
    return at::arange(time, chunk.counts.options()).unsqueeze(0).ge(chunk.counts.unsqueeze(1));
}

MixerParameters::MixerParameters(const MixerDeclaration& mixer, const ModelSpec& spec, int64_t layer,
                                 ParameterStore& store) {
    const std::string prefix = layer_prefix(layer);
    const auto group = ParameterGroup::mixer;
    const std::vector<ParameterDeclaration> declared = mixer.parameters(spec.config, spec.options);
    for (size_t i = 0; i < declared.size();) {
        const ParameterDeclaration& first = declared[i];
        if (first.fused.empty()) {
            keep(first.name, store.add(prefix + first.name, first.shape, group, layer, first.full_precision));
            ++i;
            continue;
        }
        std::vector<std::pair<std::string, int64_t>> rows;
        for (; i < declared.size() && declared[i].fused == first.fused; ++i)
            rows.push_back({prefix + declared[i].name, declared[i].shape[0]});
        const std::vector<int64_t> trailing(first.shape.begin() + 1, first.shape.end());
        keep(first.fused, store.add_fused(prefix + first.fused, rows, trailing, group, layer));
    }
}

void MixerParameters::keep(const std::string& name, Parameter* parameter) {
    parameter->in_mixer = true;
    by_name_[name] = parameter;
}

const Parameter* MixerParameters::find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace amalgam
