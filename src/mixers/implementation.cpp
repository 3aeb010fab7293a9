// SPDX-License-Identifier: Apache-2.0
#include "mixers/implementation.h"

#include <stdexcept>

#include "mixers/list.h"

namespace amalgam {

#define AMALGAM_DECLARE(name)                     \
    const MixerDeclaration& name##_declaration(); \
    const MixerImplementation& name##_implementation();
AMALGAM_MIXERS(AMALGAM_DECLARE)

const MixerImplementation& find_implementation(const std::string& mixer) {
#define AMALGAM_ENTRY(name) {&name##_declaration(), &name##_implementation()},
    static const std::map<const MixerDeclaration*, const MixerImplementation*> all = {AMALGAM_MIXERS(AMALGAM_ENTRY)};
    return *all.at(&find_mixer(mixer));
}

const LayerExport& find_layer_export(const std::string& mixer, const std::string& format) {
    for (const LayerExport& one : find_implementation(mixer).exports)
        if (one.format == format) return one;
    throw std::logic_error("mixer " + mixer + " is not refused by format " + format + " but has no export to it");
}

}  // namespace amalgam
