// SPDX-License-Identifier: Apache-2.0
#include "mixers/declaration.h"

#include <cmath>

#include "mixers/list.h"
#include "system/error.h"

namespace amalgam {

#define AMALGAM_DECLARE(name) const MixerDeclaration& name##_declaration();
AMALGAM_MIXERS(AMALGAM_DECLARE)

Drawn drawn_as_linear(int64_t inputs) {
    const double bound = 1.0 / std::sqrt(double(inputs));
    return {[bound](const RandomStream& random, int64_t i) { return bound * (2.0 * random.uniform(i) - 1.0); }};
}

Drawn constant(double value) {
    return {[value](const RandomStream&, int64_t) { return value; }};
}

std::vector<ParameterDeclaration> query_key_value_projections(const ModelConfig& c, bool output_gate) {
    const int64_t width = c.query_heads * c.head_dim, hidden = c.hidden_size;
    const std::string in = "linear_attn.in_proj.weight";
    std::vector<ParameterDeclaration> all = {
        {"linear_attn.q_proj.weight", {width, hidden}, Copied{"self_attn.q_proj.weight"}, false, in},
        {"linear_attn.k_proj.weight", {width, hidden}, Expanded{"self_attn.k_proj.weight"}, false, in},
        {"linear_attn.v_proj.weight", {width, hidden}, Expanded{"self_attn.v_proj.weight"}, false, in}};
    if (output_gate) all.push_back({"linear_attn.g_proj.weight", {width, hidden}, drawn_as_linear(hidden), false, in});
    return all;
}

std::optional<std::string> MixerDeclaration::refusal(const std::string&, const ModelSpec&) const {
    return text("the linear layers are ", name(), " (the format has none)");
}

const std::vector<const MixerDeclaration*>& mixer_declarations() {
#define AMALGAM_ADDRESS(name) &name##_declaration(),
    static const std::vector<const MixerDeclaration*> all = {AMALGAM_MIXERS(AMALGAM_ADDRESS)};
    return all;
}

const MixerDeclaration& find_mixer(const std::string& name) {
    std::string known;
    for (const MixerDeclaration* mixer : mixer_declarations()) {
        if (mixer->name() == name) return *mixer;
        known += (known.empty() ? "" : ", ") + mixer->name();
    }
    throw Error(text("mixer \"", name, "\" is not known (known: ", known, ")"), ExitCode::bad_input);
}

std::optional<FoundVariant> find_variant(const std::string& name) {
    for (const MixerDeclaration* mixer : mixer_declarations())
        for (const MixerVariant& variant : mixer->variants()) {
            if (variant.name != name) continue;
            FoundVariant found{mixer, default_values(mixer->options())};
            for (const auto& [option, value] : variant.options) found.options.at(option) = value;
            return found;
        }
    return std::nullopt;
}

std::string layer_prefix(int64_t layer) {
    return text("model.layers.", layer, ".");
}

double count_elements(const std::vector<ParameterDeclaration>& parameters) {
    double count = 0;
    for (const ParameterDeclaration& parameter : parameters) {
        double elements = 1;
        for (const int64_t extent : parameter.shape) elements *= double(extent);
        count += elements;
    }
    return count;
}

}  // namespace amalgam
