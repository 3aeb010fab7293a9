// SPDX-License-Identifier: Apache-2.0
// What a start has to do: stages whose results are there are done, and one whose results are gone is run again only if
// something needs them.
#pragma once

#include <vector>

#include "stages/stages.h"

namespace amalgam {

enum class StageWork : char {
    unwanted = 'u',  // the job leaves it out
    done = 'd',
    unneeded = 'n',  // its result is gone, and what was made of it is there: removed to save space, most often
    left = 'l'
};

/// Of each stage of the pipeline. Looks through all results, so that damage is found before anything is done. Serial.
/// Throws what Stage::done() throws, and Error(bad_input) if a stage would train new weights or scores while results
/// of its older ones are there, naming these.
std::vector<StageWork> work_left(const Run& run);

}  // namespace amalgam
