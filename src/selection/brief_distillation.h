// SPDX-License-Identifier: Apache-2.0
// A candidate starts with the weights of the aligned all-linear student, and the teacher's where it restores softmax.
// It is distilled briefly on the same batches as all others; its KL to the teacher is measured on held-out sequences,
// now and then and at the end.
#pragma once

#include "selection/measurement.h"

namespace amalgam {

std::unique_ptr<Measurement> brief_distillation(MeasurementSetup setup);

}  // namespace amalgam
