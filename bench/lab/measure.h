// The commands that measure: tables on the screen, and files for `goals`; measure.cc.
#pragma once

#include "case.h"
#include "options.h"

namespace redrafter::lab {

void print_floors(const Options& options);
void run_once(const Options& options, const Backend& backend, Stream& stream);
// bandwidth, kernels, steps, drafts: what the command says.
void measure_kernels(const Options& options, const Backend& backend, Stream& stream);
// kernels and drafts on the CPU backend: by the host's clock, without a graph; cpu.cc.
void measure_on_cpu(const Options& options);
void measure_all_rounds(const Options& options, const Backend& backend, Stream& stream);

// A case that an option or command names, and its model.
struct Listed {
  ModelShape model;
  Case kernel;
};
std::vector<Listed> selected_cases(const Options& options);

// 0: all that were measured hold, 3: some do not, 1: none was measured. Throws ERR_FILE; goals.cc.
int print_goals(const Options& options);

}  // namespace redrafter::lab
