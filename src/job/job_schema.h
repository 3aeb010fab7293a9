// SPDX-License-Identifier: Apache-2.0
// The one table of all keys of a job file. Reading, printing defaults, range checks and "did you mean" all go through
// it: a key that is not here does not exist, and a key that is here can be read, written and explained.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "job/job.h"
#include "options/options.h"
#include "system/enum_names.h"

namespace amalgam {

/// A member that is an enumeration with a table of names (system/enum_names.h), reached by these names.
class EnumMember {
  public:
    template <class Enum>
    explicit EnumMember(Enum* value)
        : address_(value),
          size_(sizeof(Enum)),
          name_([value] { return name_of(*value); }),
          assign_([value](const std::string& name) {
              const std::optional<Enum> found = find_value<Enum>(name);
              if (found) *value = *found;
              return found.has_value();
          }) {}

    std::string name() const { return name_(); }
    /// False, and nothing is changed, if no value has this name.
    bool assign(const std::string& name) const { return assign_(name); }
    const void* address() const { return address_; }
    size_t size() const { return size_; }  // bytes

  private:
    const void* address_;
    size_t size_;
    std::function<std::string()> name_;
    std::function<bool(const std::string&)> assign_;
};

/// Where the value of a key lives in a Job. An optional number without a value is written "auto".
using Member = std::variant<std::string*, int64_t*, double*, std::optional<double>*, bool*, std::vector<int64_t>*,
                            std::vector<std::string>*, std::vector<TrainingPhase>*, EnumMember>;

struct JobKey {
    std::string path;         // "align.optimizer.beta1"
    std::string unit;         // "tokens"; empty: none
    std::string description;  // one line, for people
    std::function<Member(Job&)> member;
    Range range = {};                                 // numbers
    std::vector<std::string> choices = {};            // strings; empty: any. Of enumerations: all names
    std::map<std::string, std::string> refused = {};  // well-known values that are not offered -> why
    bool is_path = false;                             // ~ and $NAME are expanded when it is read
    /// Why a job has no such key: it belongs to another mixer. Empty if it has; null: every job has it.
    std::function<std::string(const Job&)> absence = nullptr;

    /// What may be written here: "one of a, b" or the range. Empty if everything of the type is allowed.
    std::string allowed() const;
    bool is_in(const Job& job) const { return absence == nullptr || absence(job).empty(); }
    /// "an integer", "true or false", "a list of integers"...
    std::string type() const;
};

struct JobSection {
    std::string path;         // "align", "align.optimizer"
    std::string description;  // one line
};

/// All keys, sections together, in the order in which they are printed.
const std::vector<JobKey>& job_schema();
/// All sections.
const std::vector<JobSection>& job_sections();

const JobKey* find_key(const std::string& path);          // nullptr: no such key
const JobSection* find_section(const std::string& path);  // nullptr: no such section

/// The key or section that somebody who wrote `path` most likely meant: smallest edit distance, of the whole path or of
/// its last part with another parent. `close` tells whether it is near enough for "did you mean".
struct Suggestion {
    std::string path;
    bool close = false;
};
Suggestion nearest_key(const std::string& path);

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
int64_t edit_distance(const std::string& a, const std::string& b);

}  // namespace amalgam
