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
