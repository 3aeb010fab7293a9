// SPDX-License-Identifier: Apache-2.0
// A list of phases in a job file: [{tokens: 1e7, sequence_length: 512}, {tokens: 1e6, sequence_length: 4096}].
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

struct PhaseList {
    const YAML::Node& node;                                    // a list
    std::string path;                                          // "distill.phases"
    std::function<std::string(const YAML::Node& node)> place;  // "job.yaml:5", for messages
    TrainingPhase of_stage;                                    // what a phase has where it gives nothing else
};

/// What is wrong is added to `problems`.
std::vector<TrainingPhase> read_phases(const PhaseList& list, std::vector<std::string>& problems);

}  // namespace amalgam
