// SPDX-License-Identifier: Apache-2.0
// The half of a mixer that needs LibTorch: how its module is made, and how its layers are written in export formats.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "mixers/mixer.h"

namespace amalgam {

/// Where an export reads the student's tensors and writes its own (exports/export_folder.h).
class TensorWriter {
  public:
    virtual ~TensorWriter() = default;

    /// A tensor of the student, fp32. Throws Error(bad_input) if it is missing.
    virtual at::Tensor take(const std::string& name) const = 0;
    /// Writes `tensor`, in the export's precision unless `full_precision`.
    virtual void put(const std::string& name, const at::Tensor& tensor, bool full_precision = false) = 0;
    /// take and put.
    void copy(const std::string& from, const std::string& to) { put(to, take(from)); }
};

/// How layers of a mixer are written in the export format of that name. What cannot be written so is refused before
/// (MixerDeclaration::refusal).
struct LayerExport {
    std::string format;
    void (*write)(TensorWriter& folder, const ModelSpec& spec, int64_t layer);
    /// Keys of the model's config.json that only models with such layers have; null: none.
    nlohmann::json (*config)(const ModelSpec& spec) = nullptr;
};

/// How a mixer whose class is `Module` is made: registers the parameters of `layer` in `store`.
template <class Module>
std::unique_ptr<Mixer> make_module(const ModelSpec& spec, int64_t layer, ParameterStore& store) {
    return std::make_unique<Module>(spec, layer, store);
}

/// How layers of a mixer start from trained layers of another one, computing the same.
struct LayerStart {
    std::string mixer;
    /// Why layers of the student `ours` cannot start from those of `theirs`; nothing if they can.
    std::optional<std::string> (*refusal)(const ModelSpec& ours, const ModelSpec& theirs);
    /// The first value of the parameter `name` (after "model.layers.N."): `transferred` is the one it would have
    /// otherwise, theirs(name) a tensor of the trained layer, nothing if it has none of that name.
    at::Tensor (*value)(const std::string& name, const at::Tensor& transferred,
                        const std::function<std::optional<at::Tensor>(const std::string& name)>& theirs);
};

struct MixerImplementation {
    std::unique_ptr<Mixer> (*make)(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    std::vector<LayerExport> exports;
    std::vector<LayerStart> starts = {};
};

/// Of the mixer of that name. Throws Error(bad_input) if there is none.
const MixerImplementation& find_implementation(const std::string& mixer);

/// Throws std::logic_error if the mixer has no such export: its declaration should have refused it.
const LayerExport& find_layer_export(const std::string& mixer, const std::string& format);

}  // namespace amalgam
