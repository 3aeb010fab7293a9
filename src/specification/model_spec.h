// SPDX-License-Identifier: Apache-2.0
// What a model is: all one needs, next to the weights, to build it. Stored as JSON in every checkpoint.
#pragma once

#include <string>

#include "options/options.h"
#include "specification/layout.h"
#include "specification/model_config.h"

namespace amalgam {

struct ModelSpec {
    ModelConfig config;
    Layout layout;
    Options options = {};           // of the linear mixer, as its declaration names them; others have their defaults
    double output_norm_eps = 1e-6;  // of the linear mixer's output norm
};

/// The JSON of the attribute `config` of checkpoints (outputs/README.md).
std::string to_json(const ModelSpec& spec);
/// Throws Error(damaged_file) naming the file `where` if `text` is not what to_json writes.
ModelSpec spec_from_json(const std::string& text, const std::string& where);

}  // namespace amalgam
