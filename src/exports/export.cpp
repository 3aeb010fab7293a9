// SPDX-License-Identifier: Apache-2.0
#include "exports/export.h"

#include "exports/fla/export_fla.h"
#include "exports/qwen3_5/export_qwen3_5.h"
#include "system/error.h"

namespace amalgam {

ExportFormat parse_export_format(const std::string& name) {
    require(name == "qwen3_5" || name == "fla", "export format \"", name, "\" is not known (qwen3_5 or fla)");
    return name == "fla" ? ExportFormat::fla : ExportFormat::qwen3_5;
}

void export_model(const TensorSource& student, const ModelSpec& spec, ExportFormat format, ExportPrecision precision,
                  const std::filesystem::path& teacher_folder, const std::filesystem::path& target) {
    require(std::filesystem::is_directory(teacher_folder), teacher_folder.string(),
            ": is not a folder (tokenizer files are copied from the teacher's); see --teacher");
    require(!std::filesystem::exists(target) || !std::filesystem::equivalent(target, teacher_folder), target.string(),
            ": is the teacher's folder (its weights would be overwritten); choose another one");
    ExportFolder folder(student, precision, teacher_folder, target);
    if (format == ExportFormat::fla)
        export_fla(folder, spec);
    else
        export_qwen3_5(folder, spec);
}

}  // namespace amalgam
