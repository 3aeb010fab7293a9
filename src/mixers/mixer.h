// SPDX-License-Identifier: Apache-2.0
// What mixes tokens in a block: the module. One interface; every mixer has a folder, and list.h names them all.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "mixers/declaration.h"
#include "operations/rope.h"
#include "parameters/parameters.h"

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

/// The parameters that a mixer's declaration names, registered in a store for one layer.
class MixerParameters {
  public:
    MixerParameters(const MixerDeclaration& mixer, const ModelSpec& spec, int64_t layer, ParameterStore& store);
    /// By its name after "model.layers.N.", of a fused parameter that of the whole; null if it is not declared.
    const Parameter* find(const std::string& name) const;

  private:
    void keep(const std::string& name, Parameter* parameter);

    std::map<std::string, const Parameter*> by_name_;
};

}  // namespace amalgam
