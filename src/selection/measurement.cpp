// SPDX-License-Identifier: Apache-2.0
#include "selection/measurement.h"

#include "selection/brief_distillation.h"
#include "selection/direct_measurement.h"

namespace amalgam {

std::unique_ptr<Measurement> make_measurement(const Scorer& scorer, MeasurementSetup setup) {
    return scorer.distils ? brief_distillation(std::move(setup)) : direct_measurement(std::move(setup));
}

}  // namespace amalgam
