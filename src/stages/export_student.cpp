// SPDX-License-Identifier: Apache-2.0
// Export: the student as folders that other programs load.
#include "exports/export.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome export_student(Run& run) {
    const auto checkpoint = run.newest_student();
    run.world.on_root([&] {
        for (const std::string& format : run.job.export_to.formats) {
            const auto target = run.folder / (format == "fla" ? "student-fla" : "student");
            export_model(*checkpoint, checkpoint->spec(), parse_export_format(format), run.job.export_to.precision,
                         run.job.teacher.path, target);
            info(text("export: ", target.string(), " (", format, ", ", name_of(run.job.export_to.precision), ")"));
        }
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
