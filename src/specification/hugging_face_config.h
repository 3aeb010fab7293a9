// SPDX-License-Identifier: Apache-2.0
// Reading the config.json of a Hugging Face folder, as transformers 4 and 5 write it, into a ModelConfig.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "specification/model_config.h"

namespace amalgam {

/// Reads `folder`/config.json. Throws Error(bad_input) naming the file and the key: a model_type without a family (see
/// teacher_family.h), unsupported rope type or activation, sizes that do not fit together.
ModelConfig read_config(const std::filesystem::path& folder);
/// The same from JSON that is there; `where` names it in messages.
ModelConfig parse_config(const nlohmann::json& json, const std::string& where);

}  // namespace amalgam
