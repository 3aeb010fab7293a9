// SPDX-License-Identifier: Apache-2.0
#include "exports/export_folder.h"

#include <ATen/ATen.h>

#include <fstream>

#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {
namespace {

/// Files of a teacher's folder that say how text becomes tokens and back, besides tokenizer_config.json.
constexpr const char* tokenizer_files[] = {
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json",   "vocab.json",
    "merges.txt",     "tokenizer.model",         "chat_template.jinja", "chat_template.json"};

/// What readers would take for a whole model while a new one is being written, or mix with it.
void remove_earlier_export(const std::filesystem::path& folder) {
    std::filesystem::remove(folder / "config.json");
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        const bool shard = name.starts_with("model-") && name.ends_with(".safetensors");
        if (shard || name == "model.safetensors" || name == "model.safetensors.index.json")
            std::filesystem::remove(entry.path());
    }
}

/// The keys of a JSON file of the teacher; none if there is no such file.
nlohmann::ordered_json read_settings(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) return nlohmann::ordered_json::object();
    std::ifstream stream(path);
    auto settings = nlohmann::ordered_json::parse(stream, nullptr, false);
    require(settings.is_object(), path.string(), ": is not valid JSON (the exported model depends on it)");
    return settings;
}

}  // namespace

ExportFolder::ExportFolder(const TensorSource& student, ExportPrecision precision, std::filesystem::path teacher_folder,
                           std::filesystem::path target)
    : student_(student),
      precision_(precision),
      teacher_folder_(std::move(teacher_folder)),
      target_(std::move(target)),
      tensors_(target_) {}

at::Tensor ExportFolder::take(const std::string& name) const {
    const auto tensor = student_.find(name);
    require(tensor.has_value(), student_.where(), ": tensor ", name,
            " is missing (the model cannot be exported without it)");
    return tensor->to(at::kFloat);
}

void ExportFolder::put(const std::string& name, const at::Tensor& tensor, bool full_precision) {
    const bool narrow = precision_ == ExportPrecision::bfloat16 && !full_precision;
    const at::Tensor written = tensor.to(narrow ? at::kBFloat16 : at::kFloat).contiguous();
    if (!written.isfinite().all().item<bool>())
        throw Error(text(target_.string(), ": ", name, " would hold NaN or infinite values in ", dtype(),
                         " (nothing is exported); ",
                         narrow ? "is the checkpoint of a training that diverged, or do its numbers need float32?"
                                : "is the checkpoint of a training that diverged?"),
                    ExitCode::diverged);
    tensors_.add(name, narrow ? SafetensorsType::bf16 : SafetensorsType::f32, written.sizes().vec(),
                 written.const_data_ptr());
}

void ExportFolder::finish(const nlohmann::json& config) {
    tensors_.finish();
    remove_earlier_export(target_);
    tensors_.publish();
    write_tokenizer();
    write_generation_config(config.at("use_cache"));
    write_text_once(target_ / "config.json", config.dump(2) + "\n");
}

void ExportFolder::write_tokenizer() const {
    for (const char* file : tokenizer_files) {
        const auto source = teacher_folder_ / file;
        if (!std::filesystem::exists(source)) continue;
        write_once(target_ / file, [&](const std::filesystem::path& path) {
            std::filesystem::copy_file(source, path, std::filesystem::copy_options::overwrite_existing);
        });
    }
    auto settings = read_settings(teacher_folder_ / "tokenizer_config.json");
    // The class that takes tokenizer.json as it stands: for the exported model_type transformers would otherwise put
    // another family's splitting rules around the vocabulary.
    if (std::filesystem::exists(teacher_folder_ / "tokenizer.json"))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast";
    if (!settings.empty()) write_text_once(target_ / "tokenizer_config.json", settings.dump(2) + "\n");
}

void ExportFolder::write_generation_config(bool use_cache) const {
    auto settings = read_settings(teacher_folder_ / "generation_config.json");
    if (!use_cache) settings["use_cache"] = false;
    if (!settings.empty()) write_text_once(target_ / "generation_config.json", settings.dump(2) + "\n");
}

void add_special_tokens(nlohmann::json& json, const ModelConfig& config) {
    const auto add = [&](const char* key, const std::vector<int64_t>& ids) {
        if (ids.size() == 1) json[key] = ids[0];
        if (ids.size() > 1) json[key] = ids;
    };
    add("bos_token_id", config.bos);
    add("eos_token_id", config.eos);
}

}  // namespace amalgam
