// SPDX-License-Identifier: Apache-2.0
#include "exports/export_folder.h"

#include <ATen/ATen.h>

#include <regex>

#include "exports/tokenizer_files.h"
#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {
namespace {

/// What readers would take for a whole model while a new one is being written, or mix with it.
void remove_earlier_export(const std::filesystem::path& folder) {
    std::filesystem::remove(folder / "config.json");
    static const std::regex shard("model-[0-9]+-of-[0-9]+\\.safetensors");
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (std::regex_match(name, shard) || name == "model.safetensors" || name == "model.safetensors.index.json")
            std::filesystem::remove(entry.path());
    }
}

}  // namespace

ExportFolder::ExportFolder(const TensorSource& student, ExportPrecision precision, std::filesystem::path teacher_folder,
                           std::filesystem::path target, std::string readme, Check check)
    : student_(student),
      precision_(precision),
      teacher_folder_(std::move(teacher_folder)),
      target_(std::move(target)),
      readme_(std::move(readme)),
      check_(std::move(check)),
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
    check_(HuggingFaceSource(target_, tensors_.written()), config);
    write_text_once(target_ / "README.md", readme_);  // first: whose folder it is must be known after an interruption
    remove_earlier_export(target_);
    tensors_.publish();
    copy_tokenizer_files(teacher_folder_, target_);
    write_generation_config(config.at("use_cache"));
    write_text_once(target_ / "config.json", config.dump(2) + "\n");
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
