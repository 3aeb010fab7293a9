// SPDX-License-Identifier: Apache-2.0
// Published teachers, so that `amalgam check --shape` answers before their weights were fetched.
#pragma once

#include <string>
#include <vector>

#include "specification/model_config.h"

namespace amalgam {

struct KnownShape {
    std::string name;     // of the Hugging Face repository, without owner, in lower case
    ModelConfig teacher;  // what sizes depend on: no tokens, no RoPE scaling
};

/// Values of each model's config.json.
const std::vector<KnownShape>& known_shapes();

/// Throws Error(bad_input) with all names if there is none of that name.
const ModelConfig& find_shape(const std::string& name);

}  // namespace amalgam
