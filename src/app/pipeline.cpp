// SPDX-License-Identifier: Apache-2.0
#include "app/pipeline.h"

#include "app/job_inputs.h"
#include "comm/watchdog.h"
#include "job/job_reader.h"
#include "job/job_values.h"
#include "job/job_writer.h"
#include "stages/progress.h"
#include "stages/work_left.h"
#include "system/activity.h"
#include "system/clock.h"
#include "system/fault_injection.h"
#include "system/log.h"
#include "system/provenance.h"

namespace amalgam {
namespace {

constexpr int64_t starts_until_given_up = 2;  // in a row, stopped without anything done

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

/// The root looks, so that all ranks skip the same stages whatever their file system shows them.
std::vector<StageWork> look_at_results(const Run& run) {
    std::string work;
    run.world.on_root([&] {
        for (const StageWork one : work_left(run)) work += char(one);
    });
    work = run.world.broadcast(work);
    std::vector<StageWork> result;
    for (const char one : work) result.push_back(StageWork(one));
    return result;
}

/// How a run ends that was asked to stop. Queued again and again without getting on it would go on for ever.
ExitCode end_of_stopped(const Run& run, const std::optional<Progress>& progress, const std::string& said, bool saved) {
    int64_t starts = 0;
    run.world.on_root([&] { starts = progress->starts_without(); });
    starts = run.world.broadcast(starts);
    if (starts == 0) {
        info(text(said, saved ? ", saved" : "", "; run the same command again to go on"));
        return ExitCode::resumable;
    }
    const std::string nothing = text(said, "; nothing got done in this start (the time was too short for it)");
    if (starts < starts_until_given_up) {
        warn(text(nothing, "; run the same command again with more time"));
        return ExitCode::resumable;
    }
    log_all(LogLevel::error, text(nothing, ", as in the ", starts - 1, starts == 2 ? " one" : " ones",
                                  " before (starting it again and again would never end); give it more time: walltime "
                                  "in the job file, and the limit of the queue"));
    return ExitCode::no_progress;
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
    std::optional<Progress> progress;  // on the root
    world.on_root([&] { progress.emplace(run.folder); });
    const std::vector<StageWork> work = look_at_results(run);
    fault_point("start");
    for (size_t i = 0; i < pipeline_stages().size(); ++i) {
        const Stage& stage = pipeline_stages()[i];
        if (work[i] == StageWork::done) info(text(stage.name, ": done before"));
        if (work[i] == StageWork::unneeded)
            info(text(stage.name, ": not run: its result is not there, but nothing that is left to do needs it"));
        if (work[i] != StageWork::left) continue;
        // A request that came after the last step of the stage before, or during the start.
        if (run.stop.ask(world, 0.0).stop)
            return end_of_stopped(run, progress, text("stopped on request before ", stage.name), false);
        const Stopwatch stage_watch;
        enter_stage(stage.name);
        fault_point(text("stage.", stage.name));
        if (stage.execute(run) == StageOutcome::stopped)
            return end_of_stopped(run, progress, text(stage.name, ": stopped on request"), true);
        info(text(stage.name, ": finished in ", format_duration(stage_watch.seconds())));
    }
    world.on_root([&] { progress->forget(); });
    info(text("finished in ", format_duration(watch.seconds()), ": ", run.folder.string()));
    return ExitCode::success;
}

}  // namespace amalgam
