// SPDX-License-Identifier: Apache-2.0
// Faults on purpose, for tests of what happens when a process dies, stops or fails at a bad moment. The environment
// variable AMALGAM_FAULT names them, separated by commas:
//
//   AMALGAM_FAULT="POINT:ACTION[:rank=R][:step=S]"      e.g. "checkpoint.before_rename:kill:rank=0"
//
// POINT is a place in the program that calls fault_point() with that name. Without rank every rank is struck, without
// step every pass. Without the variable a point costs a test of an empty list.
//
//   kill    SIGKILL to this process              stop   SIGSTOP to this process
//   throw   Error(failure) that names the point  hang   sleeps for ever
//   nan     fault_point() returns true, and the caller puts NaN into its numbers
//
// Points of a checkpoint of step S, in order (checkpoints/checkpoint_writer.cpp):
//   checkpoint.created, checkpoint.mid_write, checkpoint.before_fsync, checkpoint.before_mark,
//   checkpoint.before_rename, checkpoint.before_purge
//
// Points of a run: stage.NAME before a stage; NAME.step before step S of a training stage (score: of a candidate);
// NAME.gradient after a micro-batch, for nan (NAME.trial.step and NAME.trial.gradient in a race for learning rates);
// learning_rates.trial before trial S of such a race; score.gates before step S of gates; score.candidate before
// candidate S; score.gather before scores are put together; evaluate.measure before a model is measured
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace amalgam {

/// Takes the faults of `specification` that are meant for `rank`, in place of those before. MpiSession calls it with
/// the value of AMALGAM_FAULT. Throws Error(bad_input) if it cannot be read.
void set_up_fault_injection(const std::string& specification, int rank);

/// Strikes if a fault is set up for `point` (and `step`). True if the caller is to make its numbers NaN.
bool fault_point(std::string_view point, int64_t step = -1);

}  // namespace amalgam
