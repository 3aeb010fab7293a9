// SPDX-License-Identifier: Apache-2.0
// Candidates as they are: put together from the teacher and the aligned student, without any training, and measured on
// held-out text and recall questions (probe.h). Forward passes only.
#pragma once

#include "selection/measurement.h"

namespace amalgam {

std::unique_ptr<Measurement> direct_measurement(MeasurementSetup setup);

}  // namespace amalgam
