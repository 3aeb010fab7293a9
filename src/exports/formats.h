// SPDX-License-Identifier: Apache-2.0
// Export formats without LibTorch: their names, their folders in a run, and what they cannot express. `amalgam check`,
// the start of a run, the export stage and `amalgam export` ask the same refusal. The writers are in export.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "specification/model_spec.h"

namespace amalgam {

class ExportFormat {
  public:
    virtual ~ExportFormat() = default;

    /// As export.formats and --to name it.
    virtual std::string name() const = 0;
    /// Where the export stage writes it, in the run folder.
    virtual std::string folder() const { return "student-" + name(); }
    /// Formats have one eps for all norms. Whether a student whose linear mixers have another one in their output norms
    /// is written all the same: with a scaled residual stream.
    virtual bool scales_for_eps() const { return false; }
    /// Why it cannot express such a model, with what to do about it; nothing if it can.
    std::optional<std::string> refusal(const ModelSpec& spec) const;

  private:
    std::optional<std::string> refusal_of_eps(const ModelSpec& spec) const;
    /// What the format lacks outside the mixers. Their declarations say what it lacks for them.
    virtual std::optional<std::string> refusal_outside_mixers(const ModelSpec& spec) const = 0;
};

/// All formats, in the order of list.h.
const std::vector<const ExportFormat*>& export_formats();

/// Throws Error(bad_input) with all names if there is none of that name.
const ExportFormat& find_export_format(const std::string& name);

}  // namespace amalgam
