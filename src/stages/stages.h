// SPDX-License-Identifier: Apache-2.0
// The stages of the pipeline, in order. Each reads the run folder and writes its own file into it; a stage whose file
// is there and whole is done (work_left.h). All functions are collective over the run's ranks.
#pragma once

#include <string>
#include <vector>

#include "stages/run.h"

namespace amalgam {

enum class StageOutcome { finished, stopped };  // stopped: on request, after saving

struct Stage {
    const char* name;
    bool (*wanted)(const Run&);  // false: the job leaves the stage out
    /// Is its result there? Looks through it. Serial. Throws Error(damaged_file, diverged) for what is no result.
    bool (*done)(const Run&);
    StageOutcome (*execute)(Run&);
    /// Stages whose results it reads.
    std::vector<std::string> (*reads)(const Run&);
    bool is_for_people = false;  // its result is wanted for itself, not only by later stages
    bool makes_anew = false;     // what it makes again may be other weights or scores
};

const std::vector<Stage>& pipeline_stages();

/// Throws Error(bad_input) with the refusal of a format in which the job wants a student of this layout, or where the
/// folder that it would become holds files of somebody else: asked as soon as the layout is known, before the work that
/// would go into it. Collective.
void expect_exportable(Run& run, const Layout& layout);

StageOutcome transfer(Run& run);
StageOutcome align(Run& run);
StageOutcome score(Run& run);
StageOutcome select(Run& run);
StageOutcome distill(Run& run);
StageOutcome finetune(Run& run);
StageOutcome evaluate(Run& run);
StageOutcome export_student(Run& run);

}  // namespace amalgam
