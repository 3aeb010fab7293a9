// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <ATen/ATen.h>

#include "specification/hugging_face_config.h"
#include "system/activity.h"
#include "system/error.h"

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
    }
    throw Error("unknown safetensors type");
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

std::unique_ptr<CausalLM> load_teacher(const HuggingFaceSource& source, at::Device device,
                                       at::ScalarType compute_type) {
    ModelSpec spec;
    spec.config = read_config(source.folder());
    spec.layout = all_softmax(spec.config.layers);
    auto teacher = std::make_unique<CausalLM>(spec, device, compute_type, /*trainable=*/false);
    load_weights(*teacher, {&source});
    return teacher;
}

std::unique_ptr<CausalLM> load_teacher(const std::filesystem::path& folder, at::Device device,
                                       at::ScalarType compute_type) {
    read_config(folder);  // what is wrong with the config comes before what is wrong with the weights
    return load_teacher(HuggingFaceSource(folder), device, compute_type);
}

}  // namespace amalgam
