// SPDX-License-Identifier: Apache-2.0
// What the ranks of a job say of themselves when one of them is late, and what follows from it. Pure functions; the
// watchdog collects the messages.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "system/activity.h"

namespace amalgam {

/// A message of constant size, whatever the number of ranks.
struct RankStatus {
    int64_t round = 0;  // of the question that it answers
    int64_t candidate = -1, step = -1;
    double seconds = 0.0;   // since it began or finished anything
    double deadline = 0.0;  // of its phase; 0: none
    bool waits = false;     // for other ranks
    char stage[16] = "", operation[40] = "";
    char host[64] = "", previous_host[64] = "";  // of this rank and of the rank before it

    bool late() const { return deadline > 0.0 && seconds > deadline; }
};

RankStatus make_status(const Activity& activity, double seconds, double deadline);

/// Must the job end, and why? By the answers of all ranks (none: no answer), empty if it can go on.
///
/// It must if a rank does not answer, if a rank that waits for nobody is late, or if all ranks wait and all are late. A
/// rank that waits for one that gets on is no reason: groups of ranks that score candidates finish at different times.
std::string diagnosis(const std::vector<std::optional<RankStatus>>& ranks);

/// "rank 3", "ranks 0-2, 5".
std::string list_ranks(const std::vector<int64_t>& ranks);

}  // namespace amalgam
