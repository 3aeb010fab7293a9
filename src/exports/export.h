// SPDX-License-Identifier: Apache-2.0
// A student as a Hugging Face folder. qwen3_5: stock transformers (Qwen3_5ForCausalLM), vLLM and llama.cpp load it
// without custom code, for every teacher family; fla: flash-linear-attention's gated_deltanet. Tokenizer and chat
// template come along from the teacher's folder.
#pragma once

#include <filesystem>

#include "model/weights.h"
#include "options/choices.h"

namespace amalgam {

enum class ExportFormat { qwen3_5, fla };

ExportFormat parse_export_format(const std::string& name);

/// Writes config.json, generation_config.json, model.safetensors and the tokenizer files into `target` (config.json
/// last: a folder without it is not complete), over an earlier export. Throws Error(bad_input) naming what the format
/// cannot express, before anything is written.
void export_model(const TensorSource& student, const ModelSpec& spec, ExportFormat format, ExportPrecision precision,
                  const std::filesystem::path& teacher_folder, const std::filesystem::path& target);

}  // namespace amalgam
