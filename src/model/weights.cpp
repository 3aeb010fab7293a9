// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <ATen/ATen.h>

#include "system/activity.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

at::ScalarType scalar_type(SafetensorsType type) {
    switch (type) {
        case SafetensorsType::f32:
            return at::kFloat;
        case SafetensorsType::f16:
            return at::kHalf;
        case SafetensorsType::bf16:
            return at::kBFloat16;
        case SafetensorsType::f64:
            return at::kDouble;
        case SafetensorsType::i64:
            return at::kLong;
        case SafetensorsType::i32:
            return at::kInt;
        case SafetensorsType::other:
            break;
    }
    throw std::logic_error("unknown SafetensorsType");
}

}  // namespace

at::Tensor find_tensor(const std::string& name, at::IntArrayRef shape,
                       const std::vector<const TensorSource*>& sources) {
    for (const TensorSource* source : sources) {
        const auto found = source->find(name);
        if (!found) continue;
        require(found->sizes() == shape, source->where(), ": tensor ", name, " has shape ", found->sizes(),
                " but the model's is ", shape, " (config.json does not describe these weights)");
        // As they are computed with: large numbers of float64 are infinite there.
        const at::Tensor taken = found->scalar_type() == at::kDouble ? found->to(at::kFloat) : *found;
        require(source->known_finite() || taken.isfinite().all().item<bool>(), source->where(), ": tensor ", name,
                " holds NaN or infinite values (every result would be NaN); is the file damaged?");
        return *found;
    }
    std::string places;
    for (const TensorSource* source : sources) places += text(places.empty() ? "" : ", ", source->where());
    throw Error(text(places, ": tensor ", name, " is missing (the model needs it)"), ExitCode::bad_input);
}

HuggingFaceSource::HuggingFaceSource(const std::filesystem::path& folder)
    : folder_(folder), entries_(read_safetensors_folder(folder)) {}

std::optional<at::Tensor> HuggingFaceSource::find(const std::string& name) const {
    const auto entry = entries_.find(name);
    if (entry == entries_.end()) return std::nullopt;
    require(entry->second.type != SafetensorsType::other, folder_.string(), ": tensor ", name, " has dtype ",
            entry->second.dtype, " (no weights of this type are read)");
    at::Tensor tensor = at::empty(entry->second.shape, scalar_type(entry->second.type));
    read(entry->second, tensor.data_ptr());
    return tensor;
}

void HuggingFaceSource::read(const SafetensorsEntry& entry, void* destination) const {
    read_tensor_bytes(entry, destination);
}

ModelSource::ModelSource(CausalLM& model, std::string where) : where_(std::move(where)) {
    model.parameters().for_each_named(
        [&](const std::string& name, at::Tensor t, Parameter&) { tensors_[name] = t.cpu(); });
}

std::optional<at::Tensor> ModelSource::find(const std::string& name) const {
    const auto entry = tensors_.find(name);
    if (entry == tensors_.end()) return std::nullopt;
    return entry->second;
}

void load_weights(CausalLM& model, const std::vector<const TensorSource*>& sources) {
    model.parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
        t.copy_(find_tensor(name, t.sizes(), sources));
        mark_progress();
    });
    model.parameters().refresh_compute();
}

std::unique_ptr<CausalLM> load_teacher(const ModelConfig& config, const HuggingFaceSource& source, at::Device device,
                                       at::ScalarType compute_type) {
    const ModelSpec spec{config, all_softmax(config.layers)};
    auto teacher = std::make_unique<CausalLM>(spec, device, compute_type, /*trainable=*/false);
    load_weights(*teacher, {&source});
    return teacher;
}

std::unique_ptr<CausalLM> load_teacher(const std::filesystem::path& folder, at::Device device,
                                       at::ScalarType compute_type) {
    const TeacherFolder teacher = read_teacher_folder(folder);
    for (const std::string& note : teacher.notes) warn(note);
    return load_teacher(teacher.config, HuggingFaceSource(teacher), device, compute_type);
}

}  // namespace amalgam
