// SPDX-License-Identifier: Apache-2.0
#include "job/job_writer.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "job/job_schema.h"
#include "job/phase_keys.h"
#include "system/error.h"

namespace amalgam {

namespace {

std::string quoted(const std::string& value) {
    std::string result = "\"";
    for (const char c : value) {
        if (c == '"' || c == '\\') result += '\\';
        if (c == '\n')
            result += "\\n";
        else if (c == '\t')
            result += "\\t";
        else
            result += c;
    }
    return result + '"';
}

/// Plain words stay as they are; whatever YAML could take for something else is quoted.
std::string yaml_text(const std::string& value) {
    static const std::set<std::string> words_with_meaning = {"true", "false", "null", "yes", "no", "on",
                                                             "off",  "y",     "n",    "inf", "nan"};
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    bool plain = !value.empty() && is_letter(value[0]);
    std::string lower;
    for (const char c : value) {
        plain = plain && (is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/');
        lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    return plain && !words_with_meaning.contains(lower) ? value : quoted(value);
}

/// Shortest digits that read back to the same number, always with a point: 1e-08 without one is a text to some readers.
std::string yaml_number(double value) {
    char buffer[64];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    std::string digits(buffer, result.ptr);
    if (digits.find('.') == std::string::npos) digits.insert(std::min(digits.find('e'), digits.size()), ".0");
    return digits;
}

struct YamlValue {
    std::string operator()(const EnumMember& value) const { return yaml_text(value.name()); }
    std::string operator()(const std::string* value) const { return yaml_text(*value); }
    std::string operator()(const int64_t* value) const { return std::to_string(*value); }
    std::string operator()(const double* value) const { return yaml_number(*value); }
    std::string operator()(const std::optional<double>* value) const {
        return *value ? yaml_number(**value) : std::string("auto");
    }
    std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
    std::string operator()(const std::vector<int64_t>* values) const {
        std::string list;
        for (const int64_t value : *values) list += (list.empty() ? "" : ", ") + std::to_string(value);
        return "[" + list + "]";
    }
    std::string operator()(const std::vector<TrainingPhase>* phases) const {
        std::string list;
        for (const TrainingPhase& phase : *phases) {
            std::string keys;
            for (const PhaseKey& key : phase_keys())
                keys += text(keys.empty() ? "" : ", ", key.name, ": ", phase.*key.member);
            list += text(list.empty() ? "" : ", ", "{", keys, "}");
        }
        return "[" + list + "]";
    }
    std::string operator()(const std::vector<std::string>* values) const {
        std::string list;
        for (const std::string& value : *values) list += (list.empty() ? "" : ", ") + yaml_text(value);
        return "[" + list + "]";
    }
};

}  // namespace

std::string yaml_value(Job job, const JobKey& key) {
    return std::visit(YamlValue(), key.member(job));
}

namespace {

std::string comment(const JobKey& key) {
    std::string notes = key.unit;
    if (!key.allowed().empty()) notes += (notes.empty() ? "" : "; ") + key.allowed();
    return key.description + (notes.empty() ? "" : " [" + notes + "]");
}

std::string to_yaml(Job job, bool with_comments) {
    const size_t comment_column = 34;
    std::string result, section;
    for (const JobKey& key : job_schema()) {
        const bool absent = !key.is_in(job);
        if (absent && !with_comments) continue;
        const size_t dot = key.path.rfind('.');
        const std::string parent = dot == std::string::npos ? "" : key.path.substr(0, dot);
        const std::string name = dot == std::string::npos ? key.path : key.path.substr(dot + 1);
        const size_t depth = parent.empty() ? 0 : (parent.find('.') == std::string::npos ? 1 : 2);
        if (parent != section) {
            section = parent;
            const std::string indent(4 * (depth - 1), ' ');
            if (with_comments && depth == 1) result += "\n";
            if (with_comments) result += text(indent, "# ", find_section(parent)->description, "\n");
            result += indent + parent.substr(depth == 1 ? 0 : parent.find('.') + 1) + ":\n";
        }
        // Keys of other mixers are shown, but not set.
        std::string line = std::string(4 * depth, ' ') + (absent ? "# " : "") + name + ": " + yaml_value(job, key);
        if (with_comments) {
            line.resize(std::max(line.size() + 2, comment_column), ' ');
            line += "# " + comment(key);
        }
        result += line + "\n";
    }
    return result;
}

}  // namespace

std::string to_yaml(const Job& job) {
    return to_yaml(job, false);
}

std::string commented_defaults() {
    return "# A job of amalgam: every key with its default. Keys that are left out keep their defaults; unknown keys "
           "are\n"
           "# errors. Relative paths mean the current directory; ~ and $NAME in paths are expanded. Numbers may be "
           "written\n# as 100000000 or 1e8.\n\n" +
           to_yaml(Job(), true);
}

Provenance provenance_of(const Job& job) {
    Provenance who = provenance();
    who.job = to_yaml(job);
    return who;
}

}  // namespace amalgam
