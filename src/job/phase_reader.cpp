// SPDX-License-Identifier: Apache-2.0
#include "job/phase_reader.h"

#include <algorithm>
#include <set>

#include "job/phase_keys.h"
#include "job/yaml_values.h"
#include "system/error.h"

namespace amalgam {
namespace {

class PhaseReader {
  public:
    PhaseReader(const PhaseList& list, std::vector<std::string>& problems) : list_(list), problems_(problems) {}

    TrainingPhase read(const YAML::Node& node, const std::string& path) {
        TrainingPhase phase = list_.of_stage;
        if (!node.IsMap()) {
            problem(node, path, " is ", found(node), " (a phase holds keys such as \"tokens\")");
            return phase;
        }
        std::set<std::string> given;
        for (const auto& entry : node) {
            const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : found(entry.first);
            if (!given.insert(name).second)
                problem(entry.first, path + "." + name, " is given twice (only one of them can hold) remove one");
            else
                read_key(name, entry.first, entry.second, path, phase);
        }
        const PhaseKey& tokens = phase_keys().front();
        if (!given.contains(tokens.name))
            problem(node, path, " has no \"", tokens.name, "\" (how long is the phase?) give it");
        return phase;
    }

  private:
    template <class... Parts>
    void problem(const YAML::Node& node, const std::string& path, const Parts&... parts) {
        problems_.push_back(text(list_.place(node), ": \"", path, "\"", parts...));
    }

    void read_key(const std::string& name, const YAML::Node& place, const YAML::Node& value, const std::string& path,
                  TrainingPhase& phase) {
        const auto key = std::find_if(phase_keys().begin(), phase_keys().end(),
                                      [&](const PhaseKey& one) { return one.name == name; });
        if (key == phase_keys().end()) {
            problems_.push_back(text(list_.place(place), ": unknown key \"", path, ".", name,
                                     "\" (its value would have no effect) did you mean \"",
                                     nearest_phase_key(name).name, "\"?"));
            return;
        }
        const auto number = value.IsScalar() ? parse_integer(value.Scalar()) : std::nullopt;
        if (number && key->range.contains(double(*number)))
            phase.*key->member = *number;
        else
            problem(place, path + "." + name, " is ", found(value), " (must be an integer, ", key->range.describe(),
                    "; unit: ", key->unit, ")");
    }

    const PhaseList& list_;
    std::vector<std::string>& problems_;
};

}  // namespace

std::vector<TrainingPhase> read_phases(const PhaseList& list, std::vector<std::string>& problems) {
    PhaseReader reader(list, problems);
    std::vector<TrainingPhase> phases;
    for (const YAML::Node& node : list.node)
        phases.push_back(reader.read(node, text(list.path, "[", phases.size(), "]")));
    return phases;
}

}  // namespace amalgam
