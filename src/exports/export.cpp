// SPDX-License-Identifier: Apache-2.0
#include "exports/export.h"

#include <fstream>

#include "exports/export_check.h"
#include "exports/export_readme.h"
#include "exports/list.h"
#include "exports/tokenizer_files.h"
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

/// Does it hold nothing but what a process left that was ended before it had written anything?
bool holds_nothing(const std::filesystem::path& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() != ".tmp") return false;
    return true;
}

}  // namespace

bool is_export(const std::filesystem::path& folder) {
    std::ifstream readme(folder / "README.md");
    std::string line;
    return std::getline(readme, line) && line == export_heading;
}

void expect_replaceable(const std::filesystem::path& target) {
    std::error_code unreadable;
    if (!std::filesystem::exists(target, unreadable)) return;
    require(std::filesystem::is_directory(target, unreadable), target.string(),
            ": is not a folder (the model becomes one); choose another name");
    require(holds_nothing(target) || is_export(target), target.string(),
            ": holds files, and no README.md of an earlier export (they might be replaced or removed); choose another "
            "folder, or empty this one");
}

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
    expect_replaceable(target);
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
