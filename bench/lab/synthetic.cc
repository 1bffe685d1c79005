#include "synthetic.h"

#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numbers>
#include <sstream>
#include <vector>

#include "base/check.h"
#include "base/dtype.h"

namespace redrafter::lab {
namespace {

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// 65536 values of a normal distribution, equally probable; four of them come out of one 64-bit number.
std::vector<float> normal_table() {
  std::vector<float> table(1 << 16);
  for (size_t i = 0; i < table.size() / 2; ++i) {  // Box and Muller, on a grid
    const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(i) + 0.5) / 32768.0));
    const double angle = 2.0 * std::numbers::pi * std::fmod(static_cast<double>(i) * 0.6180339887498949, 1.0);
    table[2 * i] = static_cast<float>(radius * std::cos(angle));
    table[2 * i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return table;
}

// Row `row` of the matrix number `matrix`: the same whenever it is asked for.
void random_row(uint64_t matrix, int64_t row, float scale, float* to, int64_t cols) {
  static const std::vector<float> normal = normal_table();
  const uint64_t key = mixed(matrix << 40 ^ static_cast<uint64_t>(row));
  for (int64_t i = 0; i < cols; i += 4) {
    const uint64_t bits = mixed(key + static_cast<uint64_t>(i));
    for (int64_t j = 0; j < 4 && i + j < cols; ++j) to[i + j] = scale * normal[bits >> 16 * j & 0xffff];
  }
}

using FillRow = std::function<void(int64_t row, float* to)>;
struct Tensor {
  std::string name;
  int64_t rows, cols;  // rows 0: a vector
  FillRow fill;
};

void write_safetensors(const std::string& directory, const std::vector<Tensor>& tensors) {
  std::ostringstream header;
  uint64_t offset = 0;
  for (const Tensor& t : tensors) {
    const auto bytes = static_cast<uint64_t>(2 * std::max<int64_t>(t.rows, 1) * t.cols);
    header << (offset == 0 ? '{' : ',') << '"' << t.name << "\":{\"dtype\":\"BF16\",\"shape\":[";
    if (t.rows > 0) header << t.rows << ',';
    header << t.cols << "],\"data_offsets\":[" << offset << ',' << offset + bytes << "]}";
    offset += bytes;
  }
  header << '}';
  std::ofstream file(directory + "/model.safetensors", std::ios::binary);
  const std::string text = header.str();
  const uint64_t length = text.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);  // little-endian, like the machines
  file << text;
  std::vector<float> row;
  std::vector<uint16_t> stored;
  for (const Tensor& t : tensors) {
    row.resize(static_cast<size_t>(t.cols));
    stored.resize(row.size());
    for (int64_t r = 0; r < std::max<int64_t>(t.rows, 1); ++r) {
      t.fill(r, row.data());
      for (size_t i = 0; i < row.size(); ++i) stored[i] = f32_to_bf16(row[i]);
      file.write(reinterpret_cast<const char*>(stored.data()),
                 static_cast<std::streamsize>(stored.size() * sizeof(uint16_t)));
    }
  }
  file.close();
  REDRAFTER_REQUIRE(file.good(), "ERR_FILE", "cannot write ", offset, " bytes to ", directory,
                    "; name another folder with --temporary");
}

// Matrices by number, so that rows can be made again.
constexpr uint64_t kEmbedding = 1, kHead = 2, kLayers = 1000;

struct Successors {
  int64_t vocab;
  // Its multiplier is a prime that divides no vocabulary.
  int64_t of(int64_t token) const { return (token * 1000003 + 7) % vocab; }
  // Before each token; -1 where the successor of that one is not known.
  std::vector<int64_t> predecessors() const {
    std::vector<int64_t> before(static_cast<size_t>(vocab), -1);
    for (int64_t token = 0; token < vocab; ++token) {
      if (mixed(static_cast<uint64_t>(token)) % 10 < 7) before[static_cast<size_t>(of(token))] = token;
    }
    return before;
  }
};

FillRow normal_rows(uint64_t matrix, float scale, int64_t cols) {
  return [=](int64_t row, float* to) { random_row(matrix, row, scale, to, cols); };
}

FillRow ones(int64_t cols) {
  return [=](int64_t, float* to) { std::fill_n(to, cols, 1.0f); };
}

float fan_in(int64_t cols) { return 1.0f / std::sqrt(static_cast<float>(cols)); }

void write_target(const std::string& directory, const ModelShape& m, int64_t max_positions) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/config.json")
      << "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":" << m.vocab
      << ",\"hidden_size\":" << m.hidden << ",\"num_hidden_layers\":" << m.layers
      << ",\"num_attention_heads\":" << m.heads << ",\"num_key_value_heads\":" << m.kv_heads
      << ",\"head_dim\":" << m.head_dim << ",\"intermediate_size\":" << m.ffn
      << ",\"max_position_embeddings\":" << max_positions
      << ",\"rms_norm_eps\":1e-5,\"rope_theta\":500000.0,\"hidden_act\":\"silu\",\"eos_token_id\":0,"
         "\"tie_word_embeddings\":false}";
  const int64_t h = m.hidden, q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim;
  // All layers together add about 0.3 to embeddings of size 1.
  const float added = 0.3f / std::sqrt(2.0f * static_cast<float>(m.layers));
  // The logit of a successor is ln(vocab) + 2 where the hidden state is the embedding.
  const float head = static_cast<float>((std::log(static_cast<double>(m.vocab)) + 2) / count(h));
  std::vector<Tensor> tensors{{"model.embed_tokens.weight", m.vocab, h, normal_rows(kEmbedding, 1.0f, h)},
                              {"model.norm.weight", 0, h, ones(h)},
                              {"lm_head.weight", m.vocab, h,
                               [=, before = Successors{m.vocab}.predecessors()](int64_t row, float* to) {
                                 const int64_t token = before[static_cast<size_t>(row)];
                                 random_row(token < 0 ? kHead : kEmbedding, token < 0 ? row : token, head, to,
                                            h);
                               }}};
  for (int64_t i = 0; i < m.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    uint64_t number = kLayers + 16 * static_cast<uint64_t>(i);
    const auto add = [&](const char* name, int64_t rows, int64_t cols, float scale) {
      tensors.push_back({layer + name, rows, cols, normal_rows(++number, scale * fan_in(cols), cols)});
    };
    tensors.push_back({layer + "input_layernorm.weight", 0, h, ones(h)});
    tensors.push_back({layer + "post_attention_layernorm.weight", 0, h, ones(h)});
    add("self_attn.q_proj.weight", q, h, 1.5f);
    add("self_attn.k_proj.weight", kv, h, 1.5f);
    add("self_attn.v_proj.weight", kv, h, 1.0f);
    add("self_attn.o_proj.weight", h, q, 3 * added);  // averages over the context are small
    add("mlp.gate_proj.weight", m.ffn, h, 1.0f);
    add("mlp.up_proj.weight", m.ffn, h, 1.0f);
    add("mlp.down_proj.weight", h, m.ffn, added);
  }
  write_safetensors(directory, tensors);
}

void write_config(const std::string& directory, const ModelShape& m, const char* cell, int64_t exit,
                  int blocks) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/config.json")
      << "{\"model_type\":\"redrafter_drafter\",\"cell\":\"" << cell << "\",\"vocab_size\":" << m.vocab
      << ",\"hidden_size\":" << m.hidden << ",\"exit_dim\":" << exit << ",\"num_draft_layers\":" << blocks
      << '}';
}

// Its state is SiLU(2 e), which is closest to the embedding e it comes from; its head reads that state alone.
void write_knowing(const std::string& directory, const ModelShape& m) {
  const int64_t h = m.hidden;
  write_config(directory, m, "elman", 2 * h, 0);
  const float head = 12.0f / static_cast<float>(h);
  write_safetensors(directory, {{"rnn_w.weight", h, h,
                                 [=](int64_t row, float* to) {
                                   std::fill_n(to, h, 0.0f);
                                   to[row] = 2.0f;
                                 }},
                                {"rnn_u.weight", h, h, [=](int64_t, float* to) { std::fill_n(to, h, 0.0f); }},
                                {"head.weight", m.vocab, 2 * h,
                                 [=, before = Successors{m.vocab}.predecessors()](int64_t row, float* to) {
                                   const int64_t token = before[static_cast<size_t>(row)];
                                   std::fill_n(to, h, 0.0f);
                                   random_row(token < 0 ? kHead : kEmbedding, token < 0 ? row : token, head,
                                              to + h, h);
                                 }}});
}

void write_random(const std::string& directory, const ModelShape& m) {
  const int64_t h = m.hidden;
  write_config(directory, m, "gru", h, 1);
  write_safetensors(directory, {{"gru.weight_ih", 3 * h, h, normal_rows(11, fan_in(h), h)},
                                {"gru.weight_hh", 3 * h, h, normal_rows(12, fan_in(h), h)},
                                {"input_proj.weight", h, 2 * h, normal_rows(13, fan_in(2 * h), 2 * h)},
                                {"blocks.0.weight", h, h, normal_rows(14, fan_in(h), h)},
                                {"head.weight", m.vocab, h, normal_rows(15, 2 * fan_in(h), h)}});
}

}  // namespace

Synthetic::Synthetic(const std::string& parent, const ModelShape& model, int64_t max_positions) {
  const std::filesystem::path base(parent.empty() ? std::filesystem::temp_directory_path().string() : parent);
  std::string folder = (base / "redrafter-lab-XXXXXX").string();
  REDRAFTER_REQUIRE(mkdtemp(folder.data()) != nullptr, "ERR_FILE", "cannot make a folder in ", base.string());
  folder_ = folder;
  try {
    write_target(target(), model, max_positions);
    write_knowing(knowing(), model);
    write_random(random(), model);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
    throw;
  }
}

Synthetic::~Synthetic() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace redrafter::lab
