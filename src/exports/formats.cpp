// SPDX-License-Identifier: Apache-2.0
#include "exports/formats.h"

#include <set>

#include "exports/list.h"
#include "mixers/declaration.h"
#include "system/error.h"

namespace amalgam {

#define AMALGAM_DECLARE(name) const ExportFormat& name##_format();
AMALGAM_EXPORT_FORMATS(AMALGAM_DECLARE)

std::optional<std::string> ExportFormat::refusal(const ModelSpec& spec) const {
    const std::set<std::string> mixers(spec.layout.begin(), spec.layout.end());
    for (const std::string& name : mixers) {
        const MixerDeclaration& mixer = find_mixer(name);
        if (const auto why = mixer.refusal(this->name(), spec)) return text("export ", this->name(), ": ", *why);
        if (const auto why = refusal_of_eps(spec); why && mixer.is_linear())
            return text("export ", this->name(), ": ", *why);
    }
    if (const auto why = refusal_outside_mixers(spec)) return text("export ", name(), ": ", *why);
    return std::nullopt;
}

std::optional<std::string> ExportFormat::refusal_of_eps(const ModelSpec& spec) const {
    const double eps = spec.config.rms_norm_eps, of_outputs = spec.output_norm_eps;
    if (eps == of_outputs || (scales_for_eps() && eps > 0.0 && of_outputs > 0.0)) return std::nullopt;
    std::string others;
    for (const ExportFormat* format : export_formats())
        if (eps > 0.0 && format->scales_for_eps()) others += ", or export to " + format->name();
    return text("the output norm's eps is ", of_outputs, " but rms_norm_eps is ", eps,
                " (the format has one for both); train with student.output_norm_eps: teacher", others);
}

const std::vector<const ExportFormat*>& export_formats() {
#define AMALGAM_ADDRESS(name) &name##_format(),
    static const std::vector<const ExportFormat*> all = {AMALGAM_EXPORT_FORMATS(AMALGAM_ADDRESS)};
    return all;
}

const ExportFormat& find_export_format(const std::string& name) {
    std::string known;
    for (const ExportFormat* format : export_formats()) {
        if (format->name() == name) return *format;
        known += (known.empty() ? "" : " or ") + format->name();
    }
    throw Error(text("export format \"", name, "\" is not known (", known, ")"), ExitCode::bad_input);
}

}  // namespace amalgam
