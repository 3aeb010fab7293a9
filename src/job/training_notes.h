// SPDX-License-Identifier: Apache-2.0
// What is to be said about the training that a job asks for: how automatic learning rates will be found, which given
// ones are far from the rule of thumb, and what a stage's tokens are good for. Nothing of it keeps a job from running.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "job/job.h"
#include "specification/model_config.h"

namespace amalgam {

/// `corpus_tokens`: of the training file.
std::vector<std::string> training_notes(const Job& job, const ModelConfig& teacher, int64_t corpus_tokens);

}  // namespace amalgam
