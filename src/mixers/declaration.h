// SPDX-License-Identifier: Apache-2.0
// What a mixer is, without LibTorch: its name, its job keys, its parameters and where their first values come from, its
// costs, and what export formats lack for it. Job files, checks, estimates, transfer and exports read these
// declarations and name no mixer. The other half, the module that computes, is mixer.h. list.h names all mixers.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "options/options.h"
#include "specification/model_spec.h"
#include "system/random.h"

namespace amalgam {

/// The first value is the teacher's tensor of that name in the same layer: "self_attn.q_proj.weight".
struct Copied {
    std::string from;
};

/// Likewise; rows are key/value heads, which become query heads as student.key_value_expansion says.
struct Expanded {
    std::string from;
};

/// The first value of element i (row-major) is value(random, i); `random` depends on the job's seed and the tensor's
/// name only.
struct Drawn {
    std::function<double(const RandomStream& random, int64_t i)> value;
};

using InitialValue = std::variant<Copied, Expanded, Drawn>;

/// As torch.nn.Linear starts its weight and bias: uniform in +-1/sqrt(inputs).
Drawn drawn_as_linear(int64_t inputs);
Drawn constant(double value);

struct ParameterDeclaration {
    std::string name;  // after "model.layers.N."
    std::vector<int64_t> shape;
    InitialValue initial;
    bool full_precision = false;  // computed in fp32 whatever the compute type
    std::string fused = "";       // name of the parameter whose rows these are, with those of its neighbours
};

/// What linear mixers with a query, a key and a value for each of the teacher's query heads have in common: the fused
/// projection linear_attn.in_proj.weight with rows q | k | v, and an output gate if asked for. Its other rows may
/// follow.
std::vector<ParameterDeclaration> query_key_value_projections(const ModelConfig& teacher, bool output_gate);

/// A named choice of options: student.variant.
struct MixerVariant {
    std::string name;  // as in the paper's code
    Options options;   // those that differ from the defaults
};

class MixerDeclaration {
  public:
    virtual ~MixerDeclaration() = default;

    /// As layouts, checkpoints and student.mixer name it.
    virtual std::string name() const = 0;
    /// False: the teacher's own attention, which is kept rather than made.
    virtual bool is_linear() const { return true; }
    /// Its job keys, student.NAME. Mixers may share names; an option of one name has one type.
    virtual std::vector<Option> options() const { return {}; }
    virtual std::vector<MixerVariant> variants() const { return {}; }
    /// Well-known variants that are not offered -> why, for whoever asks for one.
    virtual std::map<std::string, std::string> variants_not_offered() const { return {}; }

    /// In the order of the model's parameters; neighbours with the same `fused` are one matrix product.
    virtual std::vector<ParameterDeclaration> parameters(const ModelConfig& teacher, const Options& options) const = 0;

    /// Forward flop per token of a sequence of `length` tokens: 2 for each element of a matrix, and those of its rule.
    virtual double flops(const ModelConfig& teacher, const Options& options, double length) const = 0;
    /// Numbers of the compute type that it keeps per token for the backward pass.
    virtual double kept_numbers(const ModelConfig& teacher, const Options& options) const = 0;
    /// Numbers of the compute type that the backward pass adds to these, per token.
    virtual double gradient_numbers(const ModelConfig& teacher, const Options& options) const = 0;

    /// Why layers of this mixer in `spec` cannot be written in the export format of that name, with what to do about
    /// it; nothing if they can. A format that a mixer does not know has no such layers.
    virtual std::optional<std::string> refusal(const std::string& format, const ModelSpec& spec) const;
};

/// All mixers, in the order of list.h.
const std::vector<const MixerDeclaration*>& mixer_declarations();

/// Throws Error(bad_input) with all names if there is none of that name.
const MixerDeclaration& find_mixer(const std::string& name);

/// The linear mixer that has a variant of that name, and the options it stands for; nothing if there is none.
struct FoundVariant {
    const MixerDeclaration* mixer;
    Options options;  // all of the mixer's
};
std::optional<FoundVariant> find_variant(const std::string& name);

/// "model.layers.N.", with which the names of a layer's parameters start.
std::string layer_prefix(int64_t layer);

/// Elements of all parameters.
double count_elements(const std::vector<ParameterDeclaration>& parameters);

}  // namespace amalgam
