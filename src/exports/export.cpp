// SPDX-License-Identifier: Apache-2.0
#include "exports/export.h"

#include "exports/export_check.h"
#include "exports/export_readme.h"
#include "exports/list.h"
#include "exports/tokenizer_files.h"
#include "specification/teacher_family.h"
#include "system/error.h"

namespace amalgam {

#define AMALGAM_DECLARE(name)                                       \
    const ExportFormat& name##_format();                            \
    void write_##name(ExportFolder& folder, const ModelSpec& spec); \
    at::Tensor logits_of_##name(const TensorSource&, const nlohmann::json&, const ModelSpec&, const at::Tensor& tokens);
AMALGAM_EXPORT_FORMATS(AMALGAM_DECLARE)

namespace {

struct FormatCode {
    void (*write)(ExportFolder&, const ModelSpec&);
    ExportReader read;
};

const FormatCode& code_of(const ExportFormat& format) {
#define AMALGAM_ENTRY(name) {&name##_format(), {write_##name, logits_of_##name}},
    static const std::map<const ExportFormat*, FormatCode> all = {AMALGAM_EXPORT_FORMATS(AMALGAM_ENTRY)};
    return all.at(&format);
}

/// An export that is refused leaves no empty folder behind.
class EmptyFolderGuard {
  public:
    explicit EmptyFolderGuard(std::filesystem::path folder) : folder_(std::move(folder)) {}
    ~EmptyFolderGuard() {
        std::error_code ignored;
        if (std::filesystem::is_empty(folder_, ignored) && !ignored) std::filesystem::remove(folder_, ignored);
    }

  private:
    std::filesystem::path folder_;
};

/// An earlier export is replaced; a model that somebody may convert is not.
void expect_no_teacher(const std::filesystem::path& target) {
    std::error_code unreadable;
    require(!std::filesystem::exists(target, unreadable) || std::filesystem::is_directory(target, unreadable),
            target.string(), ": is not a folder (the model becomes one); choose another name");
    if (!std::filesystem::exists(target / "config.json", unreadable)) return;
    const auto config = read_settings(target / "config.json");
    const std::string model_type = config.contains("model_type") && config["model_type"].is_string()
                                       ? config["model_type"].get<std::string>()
                                       : "";
    for (const TeacherFamily& family : teacher_families())
        require(model_type != family.model_type, target.string(), ": holds a ", family.model_type,
                " model (it would be overwritten); choose another folder");
}

}  // namespace

ExportReader reader_of(const ExportFormat& format) {
    return code_of(format).read;
}

void export_model(const TensorSource& student, const ModelSpec& spec, const ExportFormat& format,
                  ExportPrecision precision, const std::filesystem::path& teacher_folder,
                  const std::filesystem::path& target) {
    require(std::filesystem::is_directory(teacher_folder), teacher_folder.string(),
            ": is not a folder (tokenizer files are copied from the teacher's); see --teacher");
    require(!std::filesystem::exists(target) || !std::filesystem::equivalent(target, teacher_folder), target.string(),
            ": is the teacher's folder (its weights would be overwritten); choose another one");
    expect_no_teacher(target);
    if (const auto why = format.refusal(spec)) throw Error(*why, ExitCode::bad_input);
    expect_tokenizer_files(teacher_folder);
    const FormatCode& code = code_of(format);
    const EmptyFolderGuard guard(target);
    ExportFolder folder(student, precision, teacher_folder, target, export_readme(spec, format.name()),
                        [&](const TensorSource& written, const nlohmann::json& config) {
                            expect_same_logits(student, spec, precision, code.read, written, config);
                        });
    code.write(folder, spec);
}

}  // namespace amalgam
