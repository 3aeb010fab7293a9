// SPDX-License-Identifier: Apache-2.0
// The group /recall of evaluation.h5: what models recall by kind, length and depth. Layout in outputs/README.md.
#pragma once

#include "evaluation/recall.h"
#include "storage/hdf5.h"

namespace amalgam {

/// `answers` of each model, in the order of /model, all to the same questions.
void write_recall(H5File& file, const std::vector<const RecallAnswers*>& answers);

}  // namespace amalgam
