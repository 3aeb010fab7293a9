// SPDX-License-Identifier: Apache-2.0
// What mixes tokens in a block. One interface, one file for each mixer; make_mixer knows their names.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "operations/rope.h"
#include "parameters/parameters.h"
#include "specification/model_spec.h"

namespace amalgam {

/// What a mixer remembers of the tokens before, for generation. Made by Mixer::make_cache, changed by forward.
struct MixerCache {
    virtual ~MixerCache() = default;
};

class Mixer {
  public:
    virtual ~Mixer() = default;

    /// x [batch, time, hidden] (normed) -> [batch, time, hidden]. `rotary` holds the tables of these positions. With a
    /// cache the tokens follow those already seen; one token at a time runs the mixer's recurrent form.
    virtual at::Tensor forward(const at::Tensor& x, const RotaryTables& rotary, MixerCache* cache) const = 0;

    virtual std::unique_ptr<MixerCache> make_cache(int64_t batch, at::Device device) const = 0;
};

/// Registers the mixer's parameters in `store` under "model.layers.LAYER.". Throws Error(bad_input) for unknown names.
std::unique_ptr<Mixer> make_mixer(const std::string& name, const ModelSpec& spec, int64_t layer, ParameterStore& store);

/// What the names of a layer's parameters start with.
inline std::string layer_prefix(int64_t layer) {
    return "model.layers." + std::to_string(layer) + ".";
}

}  // namespace amalgam
