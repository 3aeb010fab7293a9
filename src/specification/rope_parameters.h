// SPDX-License-Identifier: Apache-2.0
// Position embedding of a Hugging Face config, as transformers 5 reads it (modeling_rope_utils.py).
#pragma once

#include "specification/config_keys.h"
#include "specification/model_config.h"

namespace amalgam {

/// transformers 4: rope_theta beside rope_scaling (null for none). transformers 5: all in rope_parameters. Where both
/// are, rope_scaling counts and the other is not read at all. Throws Error(bad_input) naming the key: unknown types,
/// parameters for each layer type, numbers that are missing, null or out of range.
RopeConfig parse_rope(const ConfigKeys& keys, int64_t max_positions);

}  // namespace amalgam
