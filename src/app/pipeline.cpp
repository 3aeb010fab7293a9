// SPDX-License-Identifier: Apache-2.0
#include "app/pipeline.h"

#include "app/job_inputs.h"
#include "comm/watchdog.h"
#include "job/job_reader.h"
#include "job/job_values.h"
#include "job/job_writer.h"
#include "stages/stages.h"
#include "system/activity.h"
#include "system/clock.h"
#include "system/fault_injection.h"
#include "system/log.h"
#include "system/provenance.h"

namespace amalgam {
namespace {

Job read_and_check(const std::string& file, const std::vector<std::string>& overrides, int64_t ranks) {
    const Job job = read_job(file, overrides);
    const JobInputs inputs = look_at_inputs(job);
    Findings findings = check_job(job, ranks, inputs.teacher, inputs.counts);
    findings.problems.insert(findings.problems.end(), inputs.problems.begin(), inputs.problems.end());
    for (const std::string& note : inputs.notes) warn(note);
    if (findings.problems.empty()) return job;
    std::string message = text(file, ": the job cannot run:");
    for (const std::string& problem : findings.problems) message += "\n  " + problem;
    throw Error(message, ExitCode::bad_input);
}

}  // namespace

ExitCode run_pipeline(const std::string& job_file, const std::vector<std::string>& overrides,
                      const Communicator& world) {
    const Stopwatch watch;
    info(version());
    // The root reads and checks, the others get the result: thousands of ranks would all open the same small files.
    std::string resolved;
    world.on_root([&] { resolved = to_yaml(read_and_check(job_file, overrides, world.size())); });
    const Job job = parse_job(world.broadcast(resolved), job_file);
    const Watchdog watchdog(world, {.setup = deadline_seconds("deadlines.setup", job.deadlines.setup),
                                    .step = deadline_seconds("deadlines.step", job.deadlines.step),
                                    .checkpoint = deadline_seconds("deadlines.checkpoint", job.deadlines.checkpoint)});
    Run run(job, world);
    for (const Stage& stage : pipeline_stages()) {
        if (!stage.wanted(run)) continue;
        // The root looks, so that all ranks skip the same stages whatever their file system shows them.
        bool done = false;
        world.on_root([&] { done = stage.done(run); });
        done = world.broadcast(int64_t{done}) != 0;
        if (done) {
            info(text(stage.name, ": done before"));
            continue;
        }
        // A request that came after the last step of the stage before, or during the start.
        if (run.stop.ask(world, 0.0).stop) {
            info(text("stopped on request before ", stage.name, "; run the same command again to go on"));
            return ExitCode::resumable;
        }
        const Stopwatch stage_watch;
        enter_stage(stage.name);
        fault_point(text("stage.", stage.name));
        if (stage.execute(run) == StageOutcome::stopped) {
            info(text(stage.name, ": stopped on request, saved; run the same command again to go on"));
            return ExitCode::resumable;
        }
        info(text(stage.name, ": finished in ", format_duration(stage_watch.seconds())));
    }
    info(text("finished in ", format_duration(watch.seconds()), ": ", run.folder.string()));
    return ExitCode::success;
}

}  // namespace amalgam
