// SPDX-License-Identifier: Apache-2.0
#include "exports/export.h"

#include "exports/list.h"
#include "system/error.h"

namespace amalgam {

#define AMALGAM_DECLARE(name)            \
    const ExportFormat& name##_format(); \
    void write_##name(ExportFolder& folder, const ModelSpec& spec);
AMALGAM_EXPORT_FORMATS(AMALGAM_DECLARE)

namespace {

using Writer = void (*)(ExportFolder&, const ModelSpec&);

Writer writer_of(const ExportFormat& format) {
#define AMALGAM_ENTRY(name) {&name##_format(), write_##name},
    static const std::map<const ExportFormat*, Writer> all = {AMALGAM_EXPORT_FORMATS(AMALGAM_ENTRY)};
    return all.at(&format);
}

}  // namespace

void export_model(const TensorSource& student, const ModelSpec& spec, const ExportFormat& format,
                  ExportPrecision precision, const std::filesystem::path& teacher_folder,
                  const std::filesystem::path& target) {
    require(std::filesystem::is_directory(teacher_folder), teacher_folder.string(),
            ": is not a folder (tokenizer files are copied from the teacher's); see --teacher");
    require(!std::filesystem::exists(target) || !std::filesystem::equivalent(target, teacher_folder), target.string(),
            ": is the teacher's folder (its weights would be overwritten); choose another one");
    if (const auto why = format.refusal(spec)) throw Error(*why, ExitCode::bad_input);
    ExportFolder folder(student, precision, teacher_folder, target);
    writer_of(format)(folder, spec);
}

}  // namespace amalgam
