// A Backend that throws, made of a table that does not (ops/cuda.h): ERR_CUDA for what a call has left in the
// stream, ERR_OOM where there is no memory. The functions of a Backend carry no state, so where the table
// comes from is a type, Source, with three static functions:
//   const Backend& table();
//   void enter();            before each call: makes the device current in this thread
//   bool memory(uint64_t* free, uint64_t* total);    bytes; false when that is not known
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "ops/ops.h"

namespace redrafter {

// A name as a template argument.
template <size_t size>
struct OpName {
  char text[size];
  constexpr OpName(const char (&name)[size]) { std::copy_n(name, size, text); }
};

// Not inlined: the templates below exist once per op and device.
[[noreturn]] void fail_without(const char* op);
[[noreturn]] void fail_cuda(const char* op, const Stream& stream);
[[noreturn]] void fail_memory(const std::string& what, bool (*memory)(uint64_t* free, uint64_t* total));

template <typename Source, auto member, OpName name, typename Params>
void throwing_op(const Params& params, Stream& stream) {
  const Op<Params> op = Source::table().*member;
  if (op == nullptr) fail_without(name.text);
  Source::enter();
  op(params, stream);
  if (stream.error != nullptr) fail_cuda(name.text, stream);
}

template <typename Source, auto member, OpName name>
void throwing_copy(void* to, const void* from, size_t bytes, Stream& stream) {
  Source::enter();
  (Source::table().*member)(to, from, bytes, stream);
  if (stream.error != nullptr) fail_cuda(name.text, stream);
}

template <typename Source>
void throwing_wait(Stream& stream) {
  Source::enter();
  Source::table().wait(stream);
  if (stream.error != nullptr) fail_cuda("wait", stream);
}

template <typename Source, auto member>
void* throwing_allocate(size_t bytes) {
  Source::enter();
  void* memory = (Source::table().*member)(bytes);
  if (memory == nullptr) fail_memory(std::to_string(bytes) + " bytes", Source::memory);
  return memory;
}

template <typename Source, auto member>
void entered_release(void* memory) {
  Source::enter();
  (Source::table().*member)(memory);
}

template <typename Source>
bool entered_memory(uint64_t* free, uint64_t* total) {
  Source::enter();
  return Source::memory(free, total);
}

template <typename Source>
void throwing_begin_capture(Stream& stream) {
  Source::enter();
  Source::table().begin_capture(stream);
  if (stream.error != nullptr) fail_cuda("begin_capture", stream);
}

template <typename Source>
void* throwing_end_capture(Stream& stream) {
  Source::enter();
  void* graph = Source::table().end_capture(stream);
  if (stream.error != nullptr) fail_cuda("end_capture", stream);
  return graph;
}

template <typename Source>
void throwing_launch_graph(void* graph, Stream& stream) {
  Source::enter();
  Source::table().launch_graph(graph, stream);
  if (stream.error != nullptr) fail_cuda("launch_graph", stream);
}

// Nobody closes a stream that did not open, so this does.
template <typename Source>
void throwing_open_stream(Stream& stream, StreamUse use) {
  Source::enter();
  Source::table().open_stream(stream, use);
  if (stream.error == nullptr) return;
  const Stream failed = stream;
  Source::table().close_stream(stream);
  if (std::strcmp(failed.error, "out of memory") == 0) {  // as CUDA calls cudaErrorMemoryAllocation
    fail_memory("what a stream needs", Source::memory);
  }
  fail_cuda("open_stream", failed);
}

template <typename Source>
void entered_close_stream(Stream& stream) {
  Source::enter();
  Source::table().close_stream(stream);
}

template <typename Source>
Backend throwing_backend(const char* level) {
#define REDRAFTER_OP(op) .op = &throwing_op<Source, &Backend::op, #op>
  return {.name = Source::table().name,
          .level = level,
          REDRAFTER_OP(matmul_pack),
          REDRAFTER_OP(embed),
          REDRAFTER_OP(norm),
          REDRAFTER_OP(matmul),
          REDRAFTER_OP(rope),
          REDRAFTER_OP(attention),
          REDRAFTER_OP(act),
          REDRAFTER_OP(adjust),
          REDRAFTER_OP(adjust_undo),
          REDRAFTER_OP(sample),
          REDRAFTER_OP(logprob),
          REDRAFTER_OP(cell),
          REDRAFTER_OP(mix),
          REDRAFTER_OP(residual),
          REDRAFTER_OP(head_top),
          REDRAFTER_OP(beam_start),
          REDRAFTER_OP(beam),
          REDRAFTER_OP(tree_pack),
          REDRAFTER_OP(tree_rows),
          REDRAFTER_OP(tree_accept),
          REDRAFTER_OP(keep_hidden),
          REDRAFTER_OP(kv_compact),
          REDRAFTER_OP(kv_copy_block),
          REDRAFTER_OP(kv_export),
          REDRAFTER_OP(kv_import),
          .matrix_bytes = Source::table().matrix_bytes,
          .kv_layout = Source::table().kv_layout,
          .takes = Source::table().takes,
          .host_memory = Source::table().host_memory,
          .memory = &entered_memory<Source>,
          .allocate = &throwing_allocate<Source, &Backend::allocate>,
          .release = &entered_release<Source, &Backend::release>,
          .upload = &throwing_copy<Source, &Backend::upload, "upload">,
          .download = &throwing_copy<Source, &Backend::download, "download">,
          .copy = &throwing_copy<Source, &Backend::copy, "copy">,
          .wait = &throwing_wait<Source>,
          .allocate_host = &throwing_allocate<Source, &Backend::allocate_host>,
          .release_host = &entered_release<Source, &Backend::release_host>,
          .upload_later = &throwing_copy<Source, &Backend::upload_later, "upload">,
          .download_later = &throwing_copy<Source, &Backend::download_later, "download">,
          .begin_capture = &throwing_begin_capture<Source>,
          .end_capture = &throwing_end_capture<Source>,
          .launch_graph = &throwing_launch_graph<Source>,
          .release_graph = &entered_release<Source, &Backend::release_graph>,
          .open_stream = &throwing_open_stream<Source>,
          .close_stream = &entered_close_stream<Source>,
          .stream_bytes = Source::table().stream_bytes};
#undef REDRAFTER_OP
}

}  // namespace redrafter
