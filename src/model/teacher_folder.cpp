// SPDX-License-Identifier: Apache-2.0
#include "model/teacher_folder.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "model/causal_lm.h"
#include "specification/hugging_face_config.h"
#include "storage/posix_file.h"
#include "system/error.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using Entries = std::map<std::string, SafetensorsEntry>;
using Shapes = std::map<std::string, std::vector<int64_t>>;

constexpr const char *embedding = "model.embed_tokens.weight", *head = "lm_head.weight", *prefix = "model.";
constexpr size_t most_names = 8;  // in one message

/// Names and shapes of all parameters of the softmax model.
Shapes needed_tensors(const ModelConfig& config) {
    CausalLM model({config, all_softmax(config.layers)}, at::kCPU, at::kFloat, /*trainable=*/false, Allocation::later);
    Shapes shapes;
    for (const Parameter& parameter : model.parameters().all()) {
        if (parameter.pieces.empty()) shapes[parameter.name] = parameter.shape;
        for (const Piece& piece : parameter.pieces) {
            std::vector<int64_t> shape = parameter.shape;
            shape[0] = piece.rows;
            shapes[piece.name] = shape;
        }
    }
    return shapes;
}

/// As transformers renames (core_model_loading.py): files of the bare model leave "model." out, some put it before the
/// head too.
std::string own_name(const std::string& name, const Shapes& needed) {
    if (name == std::string(prefix) + head) return head;
    const bool is_bare = !needed.contains(name) && needed.contains(prefix + name);
    return is_bare ? prefix + name : name;
}

Entries under_own_names(const Entries& entries, const Shapes& needed, const fs::path& folder) {
    Entries named;
    for (const auto& [name, entry] : entries)
        require(named.emplace(own_name(name, needed), entry).second, folder.string(), ": tensor ",
                own_name(name, needed),
                " is there twice, with and without \"model.\" before its name (which one counts is undefined)");
    return named;
}

bool have_equal_values(const SafetensorsEntry& a, const SafetensorsEntry& b) {
    if (a.dtype != b.dtype || a.shape != b.shape) return false;
    if (a.file == b.file && a.offset == b.offset) return true;
    const PosixFile first = PosixFile::open(a.file), second = PosixFile::open(b.file);
    constexpr int64_t piece = 1 << 20;
    std::vector<char> left(piece), right(piece);
    for (int64_t done = 0; done < a.bytes; done += piece) {
        const int64_t count = std::min(piece, a.bytes - done);
        first.read_at(a.offset + done, left.data(), count);
        second.read_at(b.offset + done, right.data(), count);
        if (std::memcmp(left.data(), right.data(), size_t(count)) != 0) return false;
    }
    return true;
}

/// Head and embedding of a config that ties them, as transformers' tie_weights does it: the one that is there serves
/// for both, and two that differ stay two.
void tie_head(TeacherFolder& teacher, Entries& named, std::optional<bool> tied) {
    if (!teacher.config.tied_head || !named.contains(head)) return;
    if (!named.contains(embedding)) {
        named[embedding] = named[head];
    } else if (!(tied ? *tied : have_equal_values(named[head], named[embedding]))) {
        teacher.config.tied_head = false;
        teacher.notes.push_back(text(teacher.folder.string(), ": ", head, " differs from ", embedding,
                                     ", so the head is its own, as in transformers, though config.json says "
                                     "tie_word_embeddings: true"));
        return;
    }
    named.erase(head);
}

/// "model.layers.N.mlp.up_proj.weight" for every N.
std::string without_numbers(const std::string& name) {
    std::string result;
    for (size_t i = 0; i < name.size(); ++i) {
        const bool starts_number = std::isdigit(static_cast<unsigned char>(name[i])) && i > 0 && name[i - 1] == '.';
        if (!starts_number) {
            result += name[i];
            continue;
        }
        while (i + 1 < name.size() && std::isdigit(static_cast<unsigned char>(name[i + 1]))) ++i;
        result += 'N';
    }
    return result;
}

/// Names that differ in the layer only, told as one.
class Kinds {
  public:
    void add(const std::string& name) {
        Kind& kind = kinds_[without_numbers(name)];
        if (kind.count++ == 0) kind.first = name;
        ++count_;
    }
    int64_t count() const { return count_; }

    /// "a, model.layers.N.b (4 of them) and 12 more kinds".
    std::string listed() const {
        std::string result;
        size_t shown = 0;
        for (const auto& [pattern, kind] : kinds_) {
            if (shown == most_names) return result + text(" and ", kinds_.size() - shown, " more kinds");
            result += shown++ ? ", " : "";
            result += kind.count > 1 ? text(pattern, " (", kind.count, " of them)") : kind.first;
        }
        return result;
    }

  private:
    struct Kind {
        std::string first;
        int64_t count = 0;
    };
    std::map<std::string, Kind> kinds_;
    int64_t count_ = 0;
};

void note_unused(TeacherFolder& teacher, const Entries& named, const Shapes& needed) {
    Kinds unused;
    bool biases = false;
    for (const auto& [name, entry] : named) {
        // Frequencies that earlier versions of transformers saved: computed from the config ever since.
        if (needed.contains(name) || name.ends_with("rotary_emb.inv_freq")) continue;
        unused.add(name);
        biases = biases || name.ends_with(".bias");
    }
    if (unused.count() == 0) return;
    teacher.notes.push_back(text(
        teacher.folder.string(), ": ", unused.count(),
        " tensors are not used, since config.json describes a model without them: ", unused.listed(),
        biases ? "; biases count only where the family has them or config.json asks for them (attention_bias, mlp_bias)"
               : ""));
}

bool looks_quantised(const Entries& entries) {
    return std::any_of(entries.begin(), entries.end(), [](const auto& entry) {
        const std::string& name = entry.first;
        for (const char* ending : {".qweight", ".qzeros", ".scales", ".weight_scale", ".weight_scale_inv", ".absmax",
                                   ".quant_map", ".weight_packed", ".g_idx"})
            if (name.ends_with(ending)) return true;
        return false;
    });
}

void expect_needed(const TeacherFolder& teacher, const Entries& named, const Shapes& needed) {
    const std::string where = teacher.folder.string();
    Kinds missing;
    for (const auto& [name, shape] : needed)
        if (!named.contains(name)) missing.add(name);
    require(missing.count() == 0, where, ": tensors are missing: ", missing.listed(),
            looks_quantised(named) ? " (the weights are quantised; take the checkpoint they were made from)"
                                   : " (the model that config.json describes needs them); is this the right config?");
    const auto shown = [](const std::vector<int64_t>& shape) {
        std::string result;
        for (const int64_t size : shape) result += text(result.empty() ? "" : ", ", size);
        return "[" + result + "]";
    };
    for (const auto& [name, shape] : needed) {
        const SafetensorsEntry& entry = named.at(name);
        const bool is_float = entry.type == SafetensorsType::f32 || entry.type == SafetensorsType::f16 ||
                              entry.type == SafetensorsType::bf16 || entry.type == SafetensorsType::f64;
        require(is_float, where, ": tensor ", name, " has dtype ", entry.dtype,
                " (quantised weights are not read; weights are F32, F16, BF16 or F64)");
        require(entry.shape == shape, where, ": tensor ", name, " has shape ", shown(entry.shape),
                " but the model's is ", shown(shape), " (config.json does not describe these weights)");
    }
}

}  // namespace

TeacherFolder read_teacher_folder(const fs::path& folder, std::optional<bool> tied) {
    TeacherFolder teacher{.folder = folder, .config = read_config(folder), .tensors = {}, .notes = {}};
    std::error_code unreadable;
    require(!fs::exists(folder / "adapter_config.json", unreadable), folder.string(),
            ": holds adapter_config.json (transformers would add the adapter to the weights); merge the adapter into "
            "them, or take the file away if it was merged");
    const Entries entries = read_safetensors_folder(folder);
    Shapes needed = needed_tensors(teacher.config);
    needed.emplace(head, std::vector<int64_t>());  // a name to recognise, tied or not
    Entries named = under_own_names(entries, needed, folder);
    tie_head(teacher, named, tied);
    needed = needed_tensors(teacher.config);
    expect_needed(teacher, named, needed);
    note_unused(teacher, named, needed);
    for (const auto& [name, shape] : needed) teacher.tensors.insert(*named.find(name));
    return teacher;
}

}  // namespace amalgam
