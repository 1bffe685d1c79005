// Graphs: launches and copies that a stream has recorded instead of running them, to be run again and again.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "testing/simt/runtime.h"

// A stream is a name, and where it records.
struct CUstream_st {
  CUgraph_st* records = nullptr;
};

// What was recorded, in order. An entry gives what went wrong, as text that lives on, or null.
struct CUgraph_st {
  std::vector<std::function<const char*()>> work;
};

struct CUgraphExec_st {
  CUgraph_st graph;
};
