// SPDX-License-Identifier: Apache-2.0
#include "system/activity.h"

#include <atomic>

namespace amalgam {
namespace {

// One writer; the reader may see a mixture of two moments, which its next look corrects.
struct Record {
    std::atomic<Phase> phase{Phase::setup};
    std::atomic<const char*> stage{"start"};
    std::atomic<const char*> operation{nullptr};
    std::atomic<int64_t> candidate{-1}, step{-1}, count{0};
};

Record record;
thread_local bool recorded = false;

template <class Value>
void put(std::atomic<Value>& place, Value value) {
    place.store(value, std::memory_order_relaxed);
}

template <class Value>
Value get(const std::atomic<Value>& place) {
    return place.load(std::memory_order_relaxed);
}

}  // namespace

void record_this_thread() {
    recorded = true;
}

Activity current_activity() {
    return {get(record.phase),     get(record.stage), get(record.operation),
            get(record.candidate), get(record.step),  get(record.count)};
}

void enter_stage(const char* stage) {
    if (!recorded) return;
    put(record.stage, stage);
    put(record.phase, Phase::setup);
    put(record.step, int64_t{-1});
    put(record.candidate, int64_t{-1});
    mark_progress();
}

void mark_progress() {
    if (recorded) put(record.count, get(record.count) + 1);
}

InPhase::InPhase(Phase phase) : InPhase(phase, get(record.step), get(record.candidate)) {}

InPhase::InPhase(Phase phase, int64_t step, int64_t candidate) : before_(current_activity()) {
    if (!recorded) return;
    put(record.phase, phase);
    put(record.step, step);
    put(record.candidate, candidate);
    mark_progress();
}

InPhase::~InPhase() {
    if (!recorded) return;
    put(record.phase, before_.phase);
    put(record.step, before_.step);
    put(record.candidate, before_.candidate);
    mark_progress();
}

Waiting::Waiting(const char* call) : before_(get(record.operation)) {
    if (!recorded) return;
    put(record.operation, call);
    mark_progress();
}

Waiting::~Waiting() {
    if (!recorded) return;
    put(record.operation, before_);
    mark_progress();
}

}  // namespace amalgam
