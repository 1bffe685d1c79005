// Embedding gather: y[r] = W[token[r]] as fp32.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct EmbedParams {
  const int32_t* token;  // [rows], each in [0, table.rows)
  Matrix table;          // [vocab, hidden]
  float* y;              // [rows, hidden]
  int64_t rows;
};

void embed_cpu(const EmbedParams&, Stream&);
void embed_cuda(const EmbedParams&, Stream&);

}  // namespace redrafter
