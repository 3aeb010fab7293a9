// SPDX-License-Identifier: Apache-2.0
// What mixes tokens in a block: the module. One interface; every mixer has a folder, and list.h names them all.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "mixers/declaration.h"
#include "mixers/sequence_places.h"
#include "operations/fused_maps.h"
#include "parameters/parameters.h"

namespace amalgam {

/// Places for sequences that are continued, each of a fixed size.
struct CacheSize {
    int64_t slots = 0, capacity = 0;  // sequences, and tokens of each
};

/// What a mixer remembers of the tokens that the sequences in its slots have seen. Its memory is allocated once.
struct MixerCache {
    virtual ~MixerCache() = default;
    /// Slots `to` become what slots `from` are; int64, on the device, of the same length, no slot in both. Of keys and
    /// values only the first `tokens` matter.
    virtual void copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) = 0;
};

/// Tokens of each of several sequences that have seen equally many before.
struct CacheChunk {
    at::Tensor slots;        // int64 [batch] on the device, no slot twice
    int64_t first = 0;       // tokens seen before; 0: the sequence begins, whatever its slot held
    at::Tensor counts = {};  // int64 [batch] on the device: tokens of each, at least 1; undefined: all of the chunk
};

/// bool [batch, time]: what stands behind the tokens of a sequence that has fewer than `time`. Undefined without
/// counts.
at::Tensor padding_of(const CacheChunk& chunk, int64_t time);

/// One token of each of several sequences that have seen any number before.
struct CacheStep {
    at::Tensor slots;    // int32 [batch] on the device, no slot twice; -1: a row that means nothing and leaves nothing
    at::Tensor lengths;  // int32 [batch] on the device: tokens seen before
};

class Mixer {
  public:
    virtual ~Mixer() = default;

    /// Whole sequences: x [batch, time, hidden] (normed) -> [batch, time, hidden].
    virtual at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const = 0;

    /// Zeroed or uninitialised memory on the device of the parameters.
    virtual std::unique_ptr<MixerCache> make_cache(const CacheSize& size, at::Device device) const = 0;
    /// Bytes of a slot of `capacity` tokens.
    virtual int64_t cache_bytes(int64_t capacity) const = 0;

    /// As forward, of tokens that follow those in the cache, which grows by them; `rotary` holds the tables of their
    /// positions. What stands behind chunk.counts gets outputs that mean nothing and leaves nothing that a later token
    /// sees. No gradients.
    virtual at::Tensor forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                                     const CacheChunk& chunk) const = 0;
    /// The same by the mixer's recurrent form, with what stands around it: x.x and what the mixer makes of the norm,
    /// added or to be added, x.x [batch, 1, hidden]; `rotary` holds the tables of all positions up to the cache's
    /// capacity. Rows of slot -1 are for kernels only (runs_on_kernels): LibTorch operations do not take them.
    virtual Sum forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                             const CacheStep& step) const = 0;
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
