// The emulator as an object `simt`: planted kernels by name. Absent where it is not built.
#include "base/check.h"
#include "ops/cuda.h"
#include "spec/round_graphs.h"
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

// roundGraphs(keys): of RoundGraphs, asked for these shapes one after another, an element each:
// {captures, alive}: graphs made so far and those there are. What the graphs do is checked: they count.
Napi::Value round_graphs(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    static const Backend cuda = cuda_table();
    const auto keys = info[0].As<Napi::Int32Array>();
    BackendStream stream(cuda, nullptr, StreamUse::kCopies);
    DeviceBuffer number(cuda, sizeof(int32_t));
    HostBuffer memory(cuda, 2 * sizeof(int32_t));
    auto* numbers = static_cast<int32_t*>(memory.data());
    const uint64_t captures = simt::graph_captures(), alive = simt::graphs_alive();
    auto result = Napi::Array::New(info.Env());
    RoundGraphs graphs(cuda);
    for (size_t i = 0; i < keys.ElementLength(); ++i) {
      numbers[0] = static_cast<int32_t>(i) + 1;
      graphs.run({keys[i], 7}, stream.get(), [&] {
        cuda.upload_later(number.as<void>(), numbers, sizeof(int32_t), stream.get());
        cuda.download_later(numbers + 1, number.as<void>(), sizeof(int32_t), stream.get());
      });
      cuda.wait(stream.get());
      REDRAFTER_CHECK(stream.get().error == nullptr && numbers[1] == numbers[0]);
      auto seen = Napi::Object::New(info.Env());
      seen["captures"] = static_cast<double>(simt::graph_captures() - captures);
      seen["alive"] = static_cast<double>(simt::graphs_alive() - alive);
      result[static_cast<uint32_t>(i)] = seen;
    }
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
  simt["roundGraphs"] = Napi::Function::New(env, round_graphs);
  simt["graphLaunches"] = counter<simt::graph_launches>(env);
  simt["graphCaptures"] = counter<simt::graph_captures>(env);
  simt["graphsAlive"] = counter<simt::graphs_alive>(env);
  simt["mostAllocatedBytes"] = counter<simt::most_allocated_bytes>(env);
  simt["allocatedBytes"] = counter<simt::allocated_bytes>(env);
  simt["hostBytes"] = counter<simt::host_bytes>(env);
  simt["freedEarly"] = counter<simt::freed_early>(env);
  exports["simt"] = simt;
}

}  // namespace redrafter::testing
