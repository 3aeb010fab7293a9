// SPDX-License-Identifier: Apache-2.0
// What texts and numbers of a job mean, in the one place that says so. Errors are Error(bad_input).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "job/job.h"

namespace amalgam {

/// Softmax layers that the job's rule keeps in a model with `layers` layers.
std::optional<int64_t> kept_layers(const SelectJob& select, int64_t layers);

/// The same for estimates: where the scores decide, half of all layers.
int64_t likely_kept_layers(const SelectJob& select, int64_t layers);

/// "hh:mm:ss" in seconds; there may be more than 99 hours. 0 if `walltime` is empty: no limit.
int64_t walltime_seconds(const std::string& walltime);

/// A deadline in seconds: "hh:mm:ss", "mm:ss" or seconds; 0 if there is none. `key` is named in errors.
double deadline_seconds(const std::string& key, const std::string& deadline);

/// flop/s; 0 if it is empty (no MFU), nothing if it is "auto".
std::optional<double> given_peak_flops(const std::string& peak_flops);

}  // namespace amalgam
