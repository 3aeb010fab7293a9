// SPDX-License-Identifier: Apache-2.0
// A student as a Hugging Face folder, in one of the formats of list.h. Tokenizer and chat template come along from the
// teacher's folder.
#pragma once

#include <filesystem>

#include "exports/export_folder.h"
#include "exports/formats.h"
#include "model/weights.h"
#include "options/choices.h"

namespace amalgam {

/// Writes config.json, generation_config.json, model.safetensors, README.md and the tokenizer files into `target`
/// (config.json last: a folder without it is not complete), over an earlier export. Throws Error(bad_input) with the
/// format's refusal, of a target that expect_replaceable() refuses, or naming a tokenizer file that cannot be read,
/// before anything is written; Error(failure) where what was written does not compute what the student computes
/// (export_check.h): an earlier export is then still there.
void export_model(const TensorSource& student, const ModelSpec& spec, const ExportFormat& format,
                  ExportPrecision precision, const std::filesystem::path& teacher_folder,
                  const std::filesystem::path& target);

/// Was this folder written by export_model()? Its README.md says so.
bool is_export(const std::filesystem::path& folder);

/// Throws Error(bad_input) unless the folder is missing, empty or an earlier export: files of somebody else would be
/// replaced and removed.
void expect_replaceable(const std::filesystem::path& target);

}  // namespace amalgam
