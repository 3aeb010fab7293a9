// SPDX-License-Identifier: Apache-2.0
// Export: the student as folders that other programs load.
#include "exports/export.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

void expect_exportable(Run& run, const Layout& layout) {
    const ModelSpec spec = run.student_spec(layout);
    run.world.together([&] {
        for (const std::string& name : run.job.export_to.formats) {
            const ExportFormat& format = find_export_format(name);
            if (const auto why = format.refusal(spec))
                throw Error(text(*why, "; or take ", name, " out of export.formats"), ExitCode::bad_input);
            expect_replaceable(run.folder / format.folder());
        }
    });
}

StageOutcome export_student(Run& run) {
    const auto checkpoint = run.newest_student();
    run.world.on_root([&] {
        for (const std::string& name : run.job.export_to.formats) {
            const ExportFormat& format = find_export_format(name);
            const auto target = run.folder / format.folder();
            export_model(*checkpoint, checkpoint->spec(), format, run.job.export_to.precision, run.job.teacher.path,
                         target);
            info(text("export: ", target.string(), " (", name, ", ", name_of(run.job.export_to.precision), ")"));
        }
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
