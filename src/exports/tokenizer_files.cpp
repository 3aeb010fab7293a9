// SPDX-License-Identifier: Apache-2.0
#include "exports/tokenizer_files.h"

#include <fstream>
#include <vector>

#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

constexpr const char* templates_folder = "additional_chat_templates";  // named templates, as transformers 5 saves them

/// Copied as they are; those that are written anew are tokenizer_config.json and generation_config.json.
constexpr const char* copied_files[] = {
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json",   "vocab.json",
    "merges.txt",     "tokenizer.model",         "chat_template.jinja", "chat_template.json"};

/// Is there something of that name? What is there must be a file that can be opened.
bool is_there(const fs::path& file) {
    std::error_code unreadable;
    if (!fs::exists(fs::symlink_status(file, unreadable))) return false;
    require(fs::is_regular_file(file, unreadable) && std::ifstream(file).good(), file.string(),
            ": cannot be read as a file (it comes along into the exported model); is it a broken link or a folder?");
    return true;
}

std::string content_of(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {(std::istreambuf_iterator<char>(stream)), {}};
}

void expect_json(const fs::path& file) {
    const std::string source = content_of(file);
    require(!source.starts_with("\xef\xbb\xbf"), file.string(),
            ": begins with a byte order mark (the exported model's users cannot read it); save it as UTF-8 without");
    require(nlohmann::json::accept(source), file.string(),
            ": is not valid JSON (the exported model depends on it); is it complete?");
}

/// The files to be copied, relative to the folder.
std::vector<fs::path> files_to_copy(const fs::path& teacher) {
    std::vector<fs::path> files;
    for (const char* file : copied_files)
        if (is_there(teacher / file)) files.emplace_back(file);
    std::error_code unreadable;
    if (!fs::exists(teacher / templates_folder, unreadable)) return files;
    fs::directory_iterator entries(teacher / templates_folder, unreadable);
    require(!unreadable, (teacher / templates_folder).string(), ": cannot be read as a folder (", unreadable.message(),
            "); its chat templates come along into the exported model");
    for (const auto& entry : entries)
        if (entry.path().extension() == ".jinja" && is_there(entry.path()))
            files.push_back(fs::path(templates_folder) / entry.path().filename());
    return files;
}

}  // namespace

nlohmann::ordered_json read_settings(const fs::path& path) {
    if (!is_there(path)) return nlohmann::ordered_json::object();
    auto settings = nlohmann::ordered_json::parse(content_of(path), nullptr, false);
    require(settings.is_object(), path.string(), ": is not valid JSON (the exported model depends on it)");
    return settings;
}

void expect_tokenizer_files(const fs::path& teacher) {
    for (const fs::path& file : files_to_copy(teacher))
        if (file.extension() == ".json") expect_json(teacher / file);
    for (const char* file : {"tokenizer_config.json", "generation_config.json"}) read_settings(teacher / file);
}

void copy_tokenizer_files(const fs::path& teacher, const fs::path& target) {
    fs::remove_all(target / templates_folder);  // an earlier export's
    for (const fs::path& file : files_to_copy(teacher)) {
        std::error_code failed;
        fs::create_directories((target / file).parent_path(), failed);
        if (failed)
            throw Error(text((target / file).string(), ": cannot be made (", failed.message(), ")"), ExitCode::storage);
        write_once(target / file, [&](const fs::path& path) {
            fs::copy_file(teacher / file, path, fs::copy_options::overwrite_existing);
        });
    }
    auto settings = read_settings(teacher / "tokenizer_config.json");
    if (is_there(teacher / "tokenizer.json")) settings["tokenizer_class"] = "PreTrainedTokenizerFast";
    if (!settings.empty()) write_text_once(target / "tokenizer_config.json", settings.dump(2) + "\n");
}

}  // namespace amalgam
