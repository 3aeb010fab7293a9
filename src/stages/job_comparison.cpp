// SPDX-License-Identifier: Apache-2.0
#include "stages/job_comparison.h"

#include <algorithm>
#include <initializer_list>

#include "job/job_schema.h"
#include "job/job_writer.h"
#include "job/training_plan.h"
#include "system/error.h"

namespace amalgam {
namespace {

using TrainingStages = std::initializer_list<TrainingJob*>;

template <class Change>
void change_micro_batches(Job& job, const Change& change) {
    for (TrainingJob* stage : TrainingStages{&job.align, &job.score, &job.distill, &job.finetune}) {
        stage->micro_batch_sequences = change(stage->micro_batch_sequences);
        for (TrainingPhase& phase : stage->phases) phase.micro_batch_sequences = change(phase.micro_batch_sequences);
    }
}

/// Without the keys that do not change a bit of what is computed.
Job without_means(Job job) {
    const Job defaults;
    job.name = defaults.name;
    job.output = defaults.output;
    job.reuse = defaults.reuse;
    job.walltime = defaults.walltime;
    job.log_every_steps = defaults.log_every_steps;
    job.peak_flops = defaults.peak_flops;
    job.data.allow_other_tokenizer = defaults.data.allow_other_tokenizer;
    job.checkpoint = defaults.checkpoint;
    job.deadlines = defaults.deadlines;
    job.max_skipped_updates = defaults.max_skipped_updates;
    job.score.ranks_per_candidate = defaults.score.ranks_per_candidate;
    const int64_t context = job.sharding.context;
    job.sharding = defaults.sharding;
    job.sharding.context = context;
    job.score.candidates_in_step = defaults.score.candidates_in_step;
    job.score.teacher_cache_gib = defaults.score.teacher_cache_gib;
    return job;
}

}  // namespace

Job comparable(Job job) {
    job = without_means(job);
    const Job defaults;
    job.threads_per_rank = defaults.threads_per_rank;
    job.sharding.context = defaults.sharding.context;
    change_micro_batches(job, [](int64_t) { return int64_t{0}; });
    for (int64_t* chunk : {&job.score.loss_chunk_tokens, &job.distill.loss_chunk_tokens,
                           &job.finetune.loss_chunk_tokens, &job.evaluate.loss_chunk_tokens})
        *chunk = 0;
    return job;
}

Job up_to_scores(Job job) {
    job = comparable(job);
    const Job defaults;
    job.select = defaults.select;
    job.distill = defaults.distill;
    job.finetune = defaults.finetune;
    job.evaluate = defaults.evaluate;
    job.export_to = defaults.export_to;
    return job;
}

Job up_to_align(Job job) {
    job = up_to_scores(job);
    job.score = Job().score;
    return job;
}

std::string difference(const Job& before, const Job& now) {
    std::string result;
    for (const JobKey& key : job_schema()) {
        const std::string none = "not there";
        const std::string was = key.is_in(before) ? yaml_value(before, key) : none,
                          is = key.is_in(now) ? yaml_value(now, key) : none;
        if (was != is) result += text("\n  ", key.path, ": was ", was, ", now ", is);
    }
    return result;
}

std::string difference_in_bits(const Job& before, const Job& now) {
    const auto bits = [](const Job& job) {
        Job these = without_means(job);
        these.threads_per_rank = std::max<int64_t>(1, job.threads_per_rank);
        // Micro-batches that are not given are one sequence, but those of gates.
        change_micro_batches(these, [](int64_t sequences) { return std::max<int64_t>(1, sequences); });
        if (gates_are_trained(job)) these.score.micro_batch_sequences = gate_micro_batch(job.score);
        return these;
    };
    return difference(bits(before), bits(now));
}

}  // namespace amalgam
