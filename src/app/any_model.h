// SPDX-License-Identifier: Apache-2.0
// A model from whatever holds one, for commands.
#pragma once

#include <memory>
#include <string>

#include "checkpoints/checkpoint.h"
#include "model/causal_lm.h"

namespace amalgam {

/// Throws Error(bad_input) for a folder and for a file of another kind, Error(damaged_file).
Checkpoint open_checkpoint(const std::string& path);

/// A frozen model from a teacher's Hugging Face folder or a checkpoint of a run. `device` and `precision` are the
/// values of --device (auto, cpu, cuda) and --precision (auto, float32, bfloat16). Throws Error(bad_input),
/// Error(damaged_file).
std::unique_ptr<CausalLM> load_any_model(const std::string& path, const std::string& device,
                                         const std::string& precision);

}  // namespace amalgam
