// SPDX-License-Identifier: Apache-2.0
#include "stages/run_inputs.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "job/student_spec.h"
#include "storage/content_digest.h"
#include "storage/safetensors.h"
#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "inputs.json";
/// tokenizer.json is not among them: it says what the numbers in token files mean.
constexpr const char* text_files[] = {"generation_config.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt",
                                      "tokenizer.model",
                                      "chat_template.jinja",
                                      "chat_template.json"};

void add(std::vector<InputFile>& all, const std::string& key, const std::string& name, const fs::path& file) {
    if (!fs::is_regular_file(file)) return;
    all.push_back({key, name, int64_t(fs::file_size(file)), content_digest(file)});
}

std::string words_for(const InputFile& file) {
    return text(file.bytes, " bytes, digest ", file.digest.substr(0, 12));
}

/// That of the teacher's folder with this name; other keys are of one file, whatever its name.
const InputFile* find(const std::vector<InputFile>& all, const std::string& key, const std::string& name) {
    const bool has_one = key != "teacher.path" && key != texts_of_teacher;
    for (const InputFile& file : all)
        if (file.key == key && (has_one || file.name == name)) return &file;
    return nullptr;
}

}  // namespace

const std::vector<std::string>& input_keys() {
    static const std::vector<std::string> keys = {"teacher.path",      "data.training", "data.validation",
                                                  "evaluate.requests", "student.start", texts_of_teacher};
    return keys;
}

std::vector<InputFile> look_at_input_files(const Job& job) {
    std::vector<InputFile> all;
    const fs::path teacher = job.teacher.path;
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors.index.json"})
        add(all, "teacher.path", name, teacher / name);
    std::set<fs::path> weights;
    for (const auto& [name, entry] : read_safetensors_folder(teacher)) weights.insert(entry.file);
    for (const fs::path& file : weights) add(all, "teacher.path", file.filename().string(), file);
    const std::string start = start_of(job.student);
    for (const auto& [key, path] : {std::pair<const char*, const std::string&>{"data.training", job.data.training},
                                    {"data.validation", job.data.validation},
                                    {"evaluate.requests", job.evaluate.requests},
                                    {"student.start", start}})
        if (!path.empty()) add(all, key, fs::path(path).filename().string(), path);
    for (const char* name : text_files) add(all, texts_of_teacher, name, teacher / name);
    return all;
}

Job with_paths_of(const Job& job, Job other, const std::function<bool(const std::string& key)>& where) {
    const auto take = [&](const char* key, const std::string& path, std::string& others) {
        if (!path.empty() && !others.empty() && path != others && where(key)) others = path;
    };
    take("teacher.path", job.teacher.path, other.teacher.path);
    take("data.training", job.data.training, other.data.training);
    take("data.validation", job.data.validation, other.data.validation);
    take("evaluate.requests", job.evaluate.requests, other.evaluate.requests);
    if (std::string start = start_of(other.student); !start.empty()) {
        take("student.start", start_of(job.student), start);
        other.student.options["start"] = start;
    }
    return other;
}

void write_inputs(const fs::path& run_folder, const std::vector<InputFile>& inputs) {
    nlohmann::ordered_json files = nlohmann::ordered_json::array();
    for (const InputFile& file : inputs)
        files.push_back({{"key", file.key}, {"name", file.name}, {"bytes", file.bytes}, {"digest", file.digest}});
    write_text_once(run_folder / file_name, nlohmann::ordered_json{{"files", files}}.dump(1) + "\n");
}

std::optional<std::vector<InputFile>> read_inputs(const fs::path& run_folder) {
    const fs::path path = run_folder / file_name;
    if (!fs::exists(path)) return std::nullopt;
    try {
        std::ifstream stream(path);
        std::vector<InputFile> inputs;
        const nlohmann::json whole = nlohmann::json::parse(stream);
        for (const auto& file : whole.at("files"))
            inputs.push_back({file.at("key"), file.at("name"), file.at("bytes"), file.at("digest")});
        return inputs;
    } catch (const nlohmann::json::exception& error) {
        throw Error(text(path.string(), ": is damaged (", error.what(),
                         "): it says what the run was made from; remove it if you are sure that no input has changed"),
                    ExitCode::damaged_file);
    }
}

std::string difference(const std::vector<InputFile>& before, const std::vector<InputFile>& now,
                       const std::string& key) {
    std::string lines;
    for (const InputFile& was : before) {
        if (was.key != key) continue;
        const InputFile* is = find(now, key, was.name);
        if (is == nullptr)
            lines += text("\n  ", key, ": ", was.name, ": was ", words_for(was), ", is not there any more");
        else if (is->bytes != was.bytes || is->digest != was.digest)
            lines += text("\n  ", key, ": ", was.name, ": was ", words_for(was), ", is ",
                          is->name == was.name ? "" : is->name + ", ", words_for(*is));
    }
    for (const InputFile& is : now)
        if (is.key == key && find(before, key, is.name) == nullptr)
            lines += text("\n  ", key, ": ", is.name, ": was not there, is ", words_for(is));
    return lines;
}

bool is_same(const std::vector<InputFile>& before, const std::vector<InputFile>& now, const std::string& key) {
    for (const InputFile& file : before)
        if (file.key == key) return difference(before, now, key).empty();
    return false;
}

}  // namespace amalgam
