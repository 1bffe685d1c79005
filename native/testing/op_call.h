// One call of an op from a test: arguments out of a JavaScript object, memory of the backend for them,
// results back. Every buffer lies between guard words, outputs and scratch begin as a NaN pattern, and sizes
// are checked before the op runs, so that a wrong test gets an error and a wrong op is found.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/threads.h"
#include "ops/matmul_quant.h"
#include "ops/ops.h"
#include "testing/testing.h"

namespace redrafter::testing {

class OpCall;

DType dtype_of(const std::string& name);  // of a matrix

template <typename T>
constexpr napi_typedarray_type array_type() {
  if (std::is_same_v<T, float>) return napi_float32_array;
  if (std::is_same_v<T, int32_t>) return napi_int32_array;
  if (std::is_same_v<T, uint16_t>) return napi_uint16_array;
  return napi_biguint64_array;
}

// The properties of one argument object. A missing or mistyped one throws ERR_INVALID_ARGUMENT.
class Fields {
 public:
  Fields(OpCall& call, const Napi::Value& value);

  bool has(const char* key) const;
  Napi::Value get(const char* key) const;
  Fields object(const char* key) const { return Fields(call_, get(key)); }
  int64_t integer(const char* key) const;  // 0 .. 2^31 - 1
  double number(const char* key) const;
  bool flag(const char* key) const;  // false when missing
  std::string text(const char* key) const;

  template <typename T>
  int64_t length(const char* key) const {
    return static_cast<int64_t>(array<T>(key).ElementLength());
  }
  // A copy of the typed array `key`, which must have `count` elements.
  template <typename T>
  T* in(const char* key, int64_t count) const;
  // The elements of the typed array where JavaScript has them.
  template <typename T>
  const T* host(const char* key, int64_t count) const {
    REDRAFTER_REQUIRE(length<T>(key) == count, "ERR_INVALID_ARGUMENT", key, " has ", length<T>(key),
                      " elements; expected ", count);
    return array<T>(key).Data();
  }
  // Null when the property is missing.
  template <typename T>
  T* optional(const char* key, int64_t count) const {
    return has(key) ? in<T>(key, count) : nullptr;
  }
  // As in<int32_t>, and every element lies in [low, high).
  int32_t* indices(const char* key, int64_t count, int64_t low, int64_t high) const;
  // {source, dtype, rows, cols}: row-major weights, packed by the backend; of quantised ones the groups, as a
  // Uint16Array.
  Matrix matrix(const char* key) const;

 private:
  template <typename T>
  Napi::TypedArrayOf<T> array(const char* key) const {
    const Napi::Value value = get(key);
    REDRAFTER_REQUIRE(
        value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == array_type<T>(),
        "ERR_INVALID_ARGUMENT", key, " is not a typed array of the right type");
    return value.As<Napi::TypedArrayOf<T>>();
  }

  OpCall& call_;
  Napi::Object object_;
};

class OpCall {
 public:
  explicit OpCall(const Napi::CallbackInfo& info);  // (level, threads, params), see test/kit/ops.ts
  OpCall(const OpCall&) = delete;
  OpCall& operator=(const OpCall&) = delete;
  ~OpCall();

  Napi::Env env() const { return env_; }
  const Backend& backend() const { return backend_; }
  Stream& stream() { return stream_.get(); }
  int64_t threads() const { return pool_.size(); }
  const Fields& params() const { return params_; }

  // Memory between guard words, filled with the NaN pattern.
  void* allocate(size_t bytes);
  template <typename T>
  T* out(int64_t count) {
    REDRAFTER_REQUIRE(count >= 0 && count < int64_t{1} << 32, "ERR_INVALID_ARGUMENT", "too large");
    return static_cast<T*>(allocate(static_cast<size_t>(count) * sizeof(T)));
  }
  float* scratch(int64_t count) { return out<float>(count); }
  // Of a product of so many rows with w; null where it needs none.
  QuantGroup* room(const Matrix& w, int64_t rows) {
    return dtype_is_quantised(w.dtype) ? out<QuantGroup>(quant_room(rows, w.cols)) : nullptr;
  }
  void upload(void* to, const void* from, size_t bytes) {
    backend_.upload(to, from, bytes, stream());
    check_stream();
  }
  void download(void* to, const void* from, size_t bytes) {
    backend_.download(to, from, bytes, stream());
    check_stream();
  }

  // The contents of a buffer of this call as a new typed array.
  template <typename T>
  Napi::TypedArrayOf<T> take(const T* data) {
    const size_t bytes = size_of(data);
    auto array = Napi::TypedArrayOf<T>::New(env_, bytes / sizeof(T));
    if (bytes != 0) download(array.Data(), data, bytes);
    return array;
  }
  // matmul_pack; on a stream of its own where the limit on the workspace is less than it can do with.
  void pack(const PackParams& p);
  // Throws ERR_BACKEND when something has failed on the stream.
  void check_stream();
  // Throws ERR_INTERNAL when a guard word was overwritten, or a counter of the stream is not zero.
  void check_guards();

 private:
  struct Region {
    DeviceBuffer memory;
    size_t bytes;
  };
  size_t size_of(const void* data) const;
  void limit_workspace(int64_t bytes);
  void check_workspace();
  void check_counters();

  Napi::Env env_;
  std::string level_;
  const Backend& backend_;
  ThreadPool pool_;
  BackendStream stream_;
  // Before and behind every buffer. The emulator has guards of its own, which also stop what reads them.
  size_t guard_bytes_;
  int64_t workspace_bytes_ = 0;  // what the backend gave, where that is limited
  std::vector<Region> regions_;
  Fields params_;
};

template <typename T>
T* Fields::in(const char* key, int64_t count) const {
  const auto from = array<T>(key);
  REDRAFTER_REQUIRE(static_cast<int64_t>(from.ElementLength()) == count, "ERR_INVALID_ARGUMENT", key, " has ",
                    from.ElementLength(), " elements; expected ", count);
  T* to = call_.out<T>(count);
  call_.upload(to, from.Data(), from.ByteLength());
  return to;
}

// Streams opened from now on have at most so many bytes of workspace.
void set_workspace_limit(std::optional<int64_t> bytes);

using OpBody = Napi::Value (*)(OpCall&);

template <OpBody body>
Napi::Value call_op(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    OpCall call(info);
    const Napi::Value result = body(call);
    call.check_stream();
    call.check_guards();
    return result;
  });
}

template <OpBody body>
void add_op(Napi::Object ops, const char* name) {
  ops[name] = Napi::Function::New(ops.Env(), call_op<body>, name);
}

void add_row_ops(Napi::Object ops);         // ops_bindings.cc
void add_kv_ops(Napi::Object ops);          // kv_bindings.cc
void add_drafter_ops(Napi::Object ops);     // drafter_op_bindings.cc
void add_tree_ops(Napi::Object ops);        // tree_bindings.cc
void add_host_functions(Napi::Object ops);  // drafter_op_bindings.cc
void add_kv_driver(Napi::Object ops);       // kv_driver.cc

}  // namespace redrafter::testing
