// SPDX-License-Identifier: Apache-2.0
// A model from whatever holds one, for commands.
#pragma once

#include <memory>
#include <string>

#include "model/causal_lm.h"

namespace amalgam {

/// A frozen model from a Hugging Face folder or a checkpoint of a run. `device` and `precision` are the values of
/// --device (auto, cpu, cuda) and --precision (auto, float32, bfloat16). Throws Error(bad_input), Error(damaged_file).
std::unique_ptr<CausalLM> load_any_model(const std::string& path, const std::string& device,
                                         const std::string& precision);

}  // namespace amalgam
