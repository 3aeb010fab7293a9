// SPDX-License-Identifier: Apache-2.0
#include "job/job_reader.h"

#include <yaml-cpp/yaml.h>

#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>

#include "job/job_recipe.h"
#include "job/job_schema.h"
#include "job/path_expansion.h"
#include "job/phase_keys.h"
#include "job/phase_reader.h"
#include "job/yaml_values.h"
#include "system/error.h"

namespace amalgam {

namespace {

/// Stores scalars and lists in the members of a Job. False: not of the type, or not allowed.
class Store {
  public:
    /// `phases` reads a list of them. `refused` becomes the element for which a list is not allowed.
    Store(const JobKey& key, const YAML::Node& node, std::function<std::vector<TrainingPhase>()> phases,
          std::optional<YAML::Node>& refused)
        : key_(key), node_(node), phases_(std::move(phases)), refused_(refused) {}

    bool operator()(std::string* out) const { return node_.IsScalar() && store_text(node_.Scalar(), *out); }
    bool operator()(int64_t* out) const { return node_.IsScalar() && store_integer(node_.Scalar(), *out); }
    bool operator()(double* out) const {
        const auto value = node_.IsScalar() ? parse_real(node_.Scalar()) : std::nullopt;
        if (!value || !key_.range.contains(*value)) return false;
        *out = *value;
        return true;
    }
    bool operator()(std::optional<double>* out) const {
        if (node_.IsScalar() && node_.Scalar() == "auto") {
            out->reset();
            return true;
        }
        double value = 0.0;
        if (!(*this)(&value)) return false;
        *out = value;
        return true;
    }
    bool operator()(bool* out) const {
        if (!node_.IsScalar() || (node_.Scalar() != "true" && node_.Scalar() != "false")) return false;
        *out = node_.Scalar() == "true";
        return true;
    }
    bool operator()(std::vector<int64_t>* out) const {
        return store_list<int64_t>(*out, [this](const auto& word, auto& value) { return store_integer(word, value); });
    }
    bool operator()(std::vector<std::string>* out) const {
        return store_list<std::string>(*out, [this](const auto& word, auto& value) { return store_text(word, value); });
    }
    bool operator()(std::vector<TrainingPhase>* out) const {
        if (!node_.IsSequence()) return false;
        *out = phases_();
        return true;
    }

    bool operator()(const EnumMember& out) const { return node_.IsScalar() && out.assign(node_.Scalar()); }

  private:
    bool store_text(const std::string& word, std::string& out) const {
        bool allowed = key_.choices.empty();
        for (const std::string& choice : key_.choices) allowed = allowed || choice == word;
        if (allowed) out = word;
        return allowed;
    }

    bool store_integer(const std::string& word, int64_t& out) const {
        const auto value = parse_integer(word);
        if (!value || !key_.range.contains(static_cast<double>(*value))) return false;
        out = *value;
        return true;
    }

    template <class Value, class StoreOne>
    bool store_list(std::vector<Value>& out, StoreOne store_one) const {
        if (!node_.IsSequence()) return false;
        std::vector<Value> values;
        for (const YAML::Node& element : node_) {
            Value value{};
            if (!element.IsScalar() || !store_one(element.Scalar(), value)) {
                refused_ = element;
                return false;
            }
            values.push_back(value);
        }
        out = values;
        return true;
    }

    const JobKey& key_;
    const YAML::Node& node_;
    std::function<std::vector<TrainingPhase>()> phases_;
    std::optional<YAML::Node>& refused_;
};

bool is_list_of_phases(const JobKey& key) {
    Job job;  // of its own: asking for a member may give a job options that it has not
    return std::holds_alternative<std::vector<TrainingPhase>*>(key.member(job));
}

/// First gathers all given keys, then stores them; the recipe and the variant come between.
class Reader {
  public:
    void add_file(const std::string& yaml, const std::string& name) {
        file_ = name;
        std::vector<YAML::Node> documents;
        try {
            documents = YAML::LoadAll(yaml);
        } catch (const YAML::Exception& error) {
            throw Error(text(name, ":", error.mark.line + 1, ": not valid YAML: ", error.msg, " (column ",
                             error.mark.column + 1, ") look at this line and the one before"),
                        ExitCode::bad_input);
        }
        require(documents.size() <= 1, name, ": holds ", documents.size(),
                " YAML documents (a job is one) remove the lines \"---\"");
        if (documents.empty() || documents[0].IsNull()) return;
        require(documents[0].IsMap(), name, ": is ", found(documents[0]),
                " (a job file holds lines \"key: value\") see `amalgam defaults`");
        add_section(documents[0], "");
    }

    void add_override(const std::string& override_text) {
        const std::string where = "--set " + override_text;
        const size_t equals = override_text.find('=');
        if (equals == std::string::npos) {
            problems_.push_back(where + ": has no \"=\" (--set takes key=value)");
            return;
        }
        const std::string path = override_text.substr(0, equals), value = override_text.substr(equals + 1);
        const JobKey* key = find_key(path);
        if (key == nullptr) {
            if (find_section(path) != nullptr)
                problems_.push_back(text(where, ": \"", path, "\" is a section, not a key ", example_key(path)));
            else
                problems_.push_back(unknown(where, path));
            return;
        }
        // Lists need YAML, and so do values in quotes, as `amalgam defaults` prints some; anything else is taken as it
        // stands, so that no quotes are needed beside the shell's.
        try {
            const bool is_list = key->type().starts_with("a list");
            const bool is_quoted = value.starts_with('"') || value.starts_with('\'');
            given_[path] = {is_list || is_quoted ? YAML::Load(value) : YAML::Node(value), where, false};
        } catch (const YAML::Exception& error) {
            problems_.push_back(text(where, ": not valid YAML: ", error.msg, " (must be ", key->type(), ")"));
        }
    }

    /// Throws Error(damaged_file) if the keys given are only the first of those that a resolved job has, in its order.
    void expect_all_keys(const Job& job) const {
        std::string last = "none";
        bool ended = false;
        for (const JobKey& key : job_schema()) {
            if (!key.is_in(job)) continue;
            if (!given_.contains(key.path))
                ended = true;
            else if (ended)
                return;  // keys are missing between others: written by an earlier version, which had fewer
            else
                last = key.path;
        }
        if (ended)
            throw Error(text(file_, ": ends too early (its last key is ", last,
                             "): the file is damaged. If you know that the run is this job's, remove the file; else "
                             "choose another name"),
                        ExitCode::damaged_file);
    }

    Job resolve() {
        Job job;
        store("recipe", job);
        apply_recipe(job);
        store("student.variant", job);
        apply_variant(job.student);
        store("student.mixer", job);
        apply_mixer(job.student);
        for (const auto& [path, given] : given_)
            if (path != "recipe" && path != "student.variant" && path != "student.mixer" &&
                !is_list_of_phases(*find_key(path)))
                store(path, job);
        for (const JobKey& key : job_schema())  // last: phases have the stage's values where they give no other
            if (is_list_of_phases(key)) store_phases(key, job);
        if (!problems_.empty()) {
            std::string all = problems_.front();
            for (size_t i = 1; i < problems_.size(); ++i) all += "\n" + problems_[i];
            throw Error(all, ExitCode::bad_input);
        }
        return job;
    }

  private:
    struct Given {
        YAML::Node node;
        std::string where;
        bool in_file;
    };

    std::string place(const YAML::Node& key) const { return text(file_, ":", key.Mark().line + 1); }

    static std::string example_key(const std::string& section) {
        for (const JobKey& key : job_schema())
            if (key.path.starts_with(section + ".")) return text("(it holds keys such as \"", key.path, "\")");
        return "";
    }

    static std::string unknown(const std::string& where, const std::string& path) {
        const Suggestion nearest = nearest_key(path);
        const std::string problem = text(where, ": unknown key \"", path, "\" (its value would have no effect) ");
        if (nearest.close) return text(problem, "did you mean \"", nearest.path, "\"?");
        return text(problem, "the nearest known key is \"", nearest.path, "\"; `amalgam defaults` prints them all");
    }

    void add_section(const YAML::Node& section, const std::string& prefix) {
        std::map<std::string, int> lines;
        for (const auto& entry : section) {
            if (!entry.first.IsScalar()) {
                problems_.push_back(
                    text(place(entry.first), ": a key is ", found(entry.first), " (keys are single words)"));
                continue;
            }
            const std::string name = entry.first.Scalar(), path = prefix + name;
            const int line = entry.first.Mark().line + 1;
            const auto [earlier, is_new] = lines.emplace(name, line);
            if (!is_new) {
                problems_.push_back(text(place(entry.first), ": \"", path, "\" is given twice, first in line ",
                                         earlier->second, " (only one of them can hold) remove one"));
                continue;
            }
            if (find_key(path) != nullptr)
                given_[path] = {entry.second, place(entry.first), true};
            else if (find_section(path) == nullptr)
                problems_.push_back(unknown(place(entry.first), path));
            else if (entry.second.IsMap())
                add_section(entry.second, path + ".");
            else if (!entry.second.IsNull())
                problems_.push_back(text(place(entry.first), ": \"", path, "\" is ", found(entry.second),
                                         " but is a section ", example_key(path)));
        }
    }

    /// And the sum of their tokens as the stage's, where it is not given.
    void store_phases(const JobKey& key, Job& job) {
        store(key.path, job);
        const auto& phases = *std::get<std::vector<TrainingPhase>*>(key.member(job));
        const std::string tokens = stage_key(key, "tokens");
        if (phases.empty() || given_.contains(tokens)) return;
        int64_t& sum = *std::get<int64_t*>(find_key(tokens)->member(job));
        sum = 0;
        for (const TrainingPhase& phase : phases) sum += phase.tokens;
    }

    /// Of the stage that the key `phases` belongs to.
    static std::string stage_key(const JobKey& phases, const std::string& name) {
        return phases.path.substr(0, phases.path.rfind('.') + 1) + name;
    }

    std::vector<TrainingPhase> phases(const JobKey& key, const Given& given, Job& job) {
        TrainingPhase of_stage;
        for (const PhaseKey& one : phase_keys())
            of_stage.*one.member = *std::get<int64_t*>(find_key(stage_key(key, one.name))->member(job));
        const auto place_in = [&](const YAML::Node& node) { return given.in_file ? place(node) : given.where; };
        return read_phases({given.node, key.path, place_in, of_stage}, problems_);
    }

    void store(const std::string& path, Job& job) {
        const auto given = given_.find(path);
        if (given == given_.end()) return;
        const JobKey& key = *find_key(path);
        const YAML::Node& node = given->second.node;
        if (!key.is_in(job)) {
            // "false" says what is so anyway: resolved jobs of before options belonged to mixers hold such lines.
            if (!node.IsScalar() || node.Scalar() != "false")
                problems_.push_back(text(given->second.where, ": \"", path, "\" is ", found(node), " (",
                                         key.absence(job), ") remove it"));
            return;
        }
        const auto list_of_phases = [&] { return phases(key, given->second, job); };
        std::optional<YAML::Node> element;
        if (std::visit(Store(key, node, list_of_phases, element), key.member(job))) {
            if (key.is_path) expand(*std::get<std::string*>(key.member(job)), given->second.where, path);
            return;
        }
        std::string must = "must be " + key.type();
        if (!key.allowed().empty()) must += ", " + key.allowed();
        if (!key.unit.empty()) must += "; unit: " + key.unit;
        const std::string has = element ? " holds " + found(*element) : " is " + found(node);
        std::string problem = text(given->second.where, ": \"", path, "\"", has, " (", must, ")");
        const auto refused = node.IsScalar() ? key.refused.find(node.Scalar()) : key.refused.end();
        if (refused != key.refused.end()) problem += " " + refused->second;
        problems_.push_back(problem);
    }

    void expand(std::string& value, const std::string& where, const std::string& path) {
        try {
            value = expanded_path(value, text(where, ": \"", path, "\""));
        } catch (const Error& error) {
            problems_.push_back(error.what());
        }
    }

    std::string file_;
    std::map<std::string, Given> given_;
    std::vector<std::string> problems_;
};

}  // namespace

Job parse_job(const std::string& yaml, const std::string& name, const std::vector<std::string>& overrides) {
    Reader reader;
    reader.add_file(yaml, name);
    for (const std::string& override_text : overrides) reader.add_override(override_text);
    return reader.resolve();
}

namespace {

std::string content_of(const std::filesystem::path& path) {
    std::error_code unreadable;
    require(std::filesystem::exists(path, unreadable), path.string(), ": no such job file",
            unreadable ? text(" (", unreadable.message(), ")") : "", "; `amalgam defaults > ", path.string(),
            "` makes one");
    std::ifstream file(path, std::ios::binary);
    std::stringstream contents;
    contents << file.rdbuf();
    const bool is_empty_file = contents.str().empty();  // of which nothing can be copied, which sets failbit
    require(std::filesystem::is_regular_file(path, unreadable) && (is_empty_file ? file.is_open() : file.good()),
            path.string(), ": cannot be read as a job file; is it a readable YAML file?");
    return contents.str();
}

}  // namespace

Job read_job(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
    return parse_job(content_of(path), path.string(), overrides);
}

Job read_resolved_job(const std::filesystem::path& path) {
    try {
        Reader reader;
        reader.add_file(content_of(path), path.string());
        const Job job = reader.resolve();
        reader.expect_all_keys(job);
        return job;
    } catch (const Error& error) {
        if (error.code() == ExitCode::damaged_file) throw;
        throw Error(text(error.what(), "\n", path.string(),
                         ": the program has written this file, so it is damaged or was changed"),
                    ExitCode::damaged_file);
    }
}

}  // namespace amalgam
