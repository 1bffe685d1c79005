// The emulator as an object `simt`: planted kernels by name. Absent where it is not built.
#include "base/check.h"
#include "ops/cuda.h"
#include "testing/simt/control.h"
#include "testing/simt/planted.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

// run(name, input, outputWords, blocks, threads, seed, checking, forbidden = 0): {output, counter, error}.
// Kernels may not touch the first and last `forbidden` words of the output.
Napi::Value run(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    static const Backend cuda = cuda_table();
    const std::string name = info[0].As<Napi::String>();
    const auto input = info[1].As<Napi::Uint32Array>();
    const int64_t words = info[2].As<Napi::Number>().Int64Value();
    BackendStream stream(cuda, nullptr);
    DeviceBuffer in(cuda, input.ByteLength()), out(cuda, static_cast<size_t>(words) * sizeof(uint32_t));
    cuda.upload(in.as<void>(), input.Data(), input.ByteLength(), stream.get());
    const size_t forbidden =
        info.Length() > 7 ? info[7].As<Napi::Number>().Uint32Value() * sizeof(uint32_t) : 0;
    simt::forbid(out.as<char>(), forbidden);
    simt::forbid(out.as<char>() + out.bytes() - forbidden, forbidden);
    simt::set_checking(info[6].As<Napi::Boolean>());
    simt::set_seed(info[5].As<Napi::Number>().Uint32Value());
    const Planted planted{in.as<uint32_t>(),
                          static_cast<int64_t>(input.ElementLength()),
                          out.as<uint32_t>(),
                          words,
                          stream.get().counters,
                          info[3].As<Napi::Number>().Uint32Value(),
                          info[4].As<Napi::Number>().Uint32Value()};
    REDRAFTER_REQUIRE(run_planted(name, planted, stream.get()) || run_fault(name, planted, stream.get()),
                      "ERR_INVALID_ARGUMENT", "no kernel ", name);
    auto result = Napi::Object::New(info.Env());
    const char* error = stream.get().error;
    result["error"] =
        error == nullptr ? info.Env().Null() : Napi::Value(Napi::String::New(info.Env(), error));
    stream.get().error = nullptr;
    simt::set_checking(true);
    auto output = Napi::Uint32Array::New(info.Env(), static_cast<size_t>(words));
    cuda.download(output.Data(), out.as<void>(), output.ByteLength(), stream.get());
    result["output"] = output;
    uint32_t counter = 0;
    cuda.download(&counter, stream.get().counters, sizeof counter, stream.get());
    result["counter"] = counter;
    return result;
  });
}

template <auto count>
Napi::Function counter(Napi::Env env) {
  return Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(count()));
  });
}

}  // namespace

void add_simt(Napi::Env env, Napi::Object exports) {
  auto simt = Napi::Object::New(env);
  simt["run"] = Napi::Function::New(env, run);
#if defined(__clang__)
  simt["compiler"] = "clang";
#else
  simt["compiler"] = "gcc";
#endif
  simt["canCheck"] = simt::can_check();
  simt["graphLaunches"] = counter<simt::graph_launches>(env);
  simt["allocatedBytes"] = counter<simt::allocated_bytes>(env);
  simt["hostBytes"] = counter<simt::host_bytes>(env);
  simt["freedEarly"] = counter<simt::freed_early>(env);
  exports["simt"] = simt;
}

}  // namespace redrafter::testing
