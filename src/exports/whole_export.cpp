// SPDX-License-Identifier: Apache-2.0
#include "exports/whole_export.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "exports/formats.h"
#include "storage/safetensors.h"
#include "system/error.h"

namespace amalgam {

namespace fs = std::filesystem;

std::vector<std::string> exports_in(const fs::path& run_folder) {
    std::vector<std::string> folders;
    for (const ExportFormat* format : export_formats())
        if (fs::exists(run_folder / format->folder() / "config.json")) folders.push_back(format->folder());
    return folders;
}

std::string missing_in_export(const fs::path& folder, const fs::path& teacher_folder) {
    try {
        if (read_safetensors_folder(folder).empty()) return text(folder.string(), ": its weights hold no tensors");
    } catch (const Error& error) {
        return error.what();
    }
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().extension() != ".json") continue;
        std::ifstream stream(entry.path());
        if (!nlohmann::json::accept(stream)) return text(entry.path().string(), ": is not valid JSON (it is damaged)");
    }
    for (const char* name : {"config.json", "tokenizer.json"})
        if (!fs::exists(folder / name) && fs::exists(teacher_folder / name))
            return text((folder / name).string(), ": is missing");
    return "";
}

}  // namespace amalgam
