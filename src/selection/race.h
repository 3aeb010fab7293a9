// SPDX-License-Identifier: Apache-2.0
// The race of the candidates: groups of ranks take them in turn, each works at one or several of its own in step. A
// finished candidate has its file and is not measured again; the end is scores.h5. Which candidates there are, the
// rule says, round by round (rules/kept_curve.h); what is measured how is none of the race's business (measurement.h).
#pragma once

#include <filesystem>
#include <functional>

#include "rules/selection_rule.h"
#include "selection/measurement.h"

namespace amalgam {

/// The ranks of a run, divided for a race.
struct RaceGroups {
    int64_t count = 0;  // of groups
    int64_t size = 0;   // ranks in each
    int64_t mine = 0;   // which of them is this rank's
    Communicator group;
};

/// Collective over `world`, whose size is a multiple of `size` (check_job refuses others).
RaceGroups race_groups(const Communicator& world, int64_t size);

struct RaceSetup {
    const SelectionRule& rule;        // that the candidates are for
    ScoresSoFar start;                // before any candidate
    std::optional<GateCourse> gates;  // that were trained before
    bool races = false;               // may candidates leave early that are worse than the best one before them?
    const Communicator& world;
    const RaceGroups& groups;
    std::function<std::filesystem::path(int64_t number)> candidate_file;
    std::filesystem::path scores_file;
    const Provenance& provenance;
    MetricsFile& metrics;
    StopRequest& stop;
};

/// Measures the candidates that have no file yet, then writes scores.h5. False if a stop was asked for before; started
/// again, it goes on with those that are missing. Collective over the world.
bool race(const RaceSetup& setup, Measurement& measurement);

}  // namespace amalgam
