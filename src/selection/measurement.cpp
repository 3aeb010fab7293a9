// SPDX-License-Identifier: Apache-2.0
#include "selection/measurement.h"

#include <stdexcept>

#include "selection/brief_distillation.h"

namespace amalgam {
namespace {

/// The table: which scorer is measured how.
struct Entry {
    const Scorer& scorer;
    std::unique_ptr<Measurement> (*make)(MeasurementSetup);
};

const std::vector<Entry>& entries() {
    static const std::vector<Entry> all = {{restored_layer_scorer(), brief_distillation}};
    return all;
}

const Entry* entry_of(const Scorer& scorer) {
    for (const Entry& entry : entries())
        if (&entry.scorer == &scorer) return &entry;
    return nullptr;
}

}  // namespace

bool can_measure(const Scorer& scorer) {
    return entry_of(scorer) != nullptr;
}

std::unique_ptr<Measurement> make_measurement(const Scorer& scorer, MeasurementSetup setup) {
    const Entry* entry = entry_of(scorer);
    if (entry == nullptr) throw std::logic_error("scorer " + scorer.name + " has no measurement");
    return entry->make(std::move(setup));
}

}  // namespace amalgam
