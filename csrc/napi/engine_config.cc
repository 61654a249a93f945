/* A model's shape as JavaScript gives it, and what that says before there is a model. */
#include "napi/engine_config.h"

#include "model/activations.h"
#include "napi/addon_data.h"
#include "napi/engine.h"

namespace rlsd::addon {
namespace {

constexpr size_t kConfigFields = 32; /* then, where there is a window, whether each layer slides */

/* In the order of lib/policy/config.ts, encodeConfig. */
model::Config decode_config(const double* f) {
  const auto number = [&f] { return *f++; };
  const auto size = [&number] { return static_cast<int64_t>(number()); };
  const auto flag = [&number] { return number() != 0; };
  model::Config c;
  c.vocab = size();
  c.hidden = size();
  c.intermediate = size();
  c.layers = size();
  c.heads = size();
  c.kv_heads = size();
  c.head_dim = size();
  c.norm_eps = number();
  c.rope_factor = number();
  c.tied = flag();
  c.qkv_bias = flag();
  c.o_bias = flag();
  c.mlp_bias = flag();
  c.qk_norm = flag();
  c.no_rope_interval = size();
  c.rank = size();
  c.adapter_scale = number();
  c.adapted = static_cast<uint32_t>(number());
  c.window = size();
  c.norm_offset = number();
  c.post_norms = flag();
  c.activation = static_cast<int32_t>(number());
  c.embedding_scale = number();
  c.attention_scale = number();
  c.local_rope = flag();
  c.local_rope_factor = number();
  c.pre_norms = flag();
  c.whole_qk_norm = flag();
  c.residual_scale = number();
  c.logit_scale = number();
  c.rotary = size();
  c.fused = flag();
  return c;
}

}  // namespace

model::Config read_config(EngineArgs* args, size_t at) {
  const ArrayArg a = args->array(at, napi_float64_array);
  model::Config c = {};
  if (a.count < kConfigFields) {
    args->invalidate();
    return c;
  }
  const auto* fields = static_cast<const double*>(a.data);
  c = decode_config(fields);
  const size_t layers = c.window > 0 ? static_cast<size_t>(c.layers) : 0;
  if (a.count != kConfigFields + layers) {
    args->invalidate();
    return c;
  }
  for (size_t i = 0; i < layers; ++i) c.sliding.push_back(fields[kConfigFields + i] != 0);
  return c;
}

napi_value number_array(napi_env env, const std::vector<double>& values) {
  napi_value array = nullptr;
  napi_create_array_with_length(env, values.size(), &array);
  for (size_t i = 0; i < values.size(); ++i) {
    napi_set_element(env, array, static_cast<uint32_t>(i), to_number(env, values[i]));
  }
  return array;
}

namespace {

/* engineLayout(config): { names, rows (0: a vector), columns, offsets, count, parameterCount } of
 * what is trained: the adapters where the config has them, else the weights */
napi_value layout(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const model::Config config = read_config(&args, 0);
  if (!args.valid())
    return refuse(env, RLSD_INVALID_ARGUMENT, "engineLayout was called with wrong arguments.");
  const model::ParameterBlock l =
      config.has_adapters() ? static_cast<model::ParameterBlock>(model::make_adapter_layout(config))
                            : model::make_layout(config);
  napi_value result, names, name;
  std::vector<double> rows, columns, offsets;
  napi_create_object(env, &result);
  napi_create_array_with_length(env, l.parameters.size(), &names);
  for (size_t i = 0; i < l.parameters.size(); ++i) {
    const model::Parameter& p = l.parameters[i];
    napi_create_string_utf8(env, p.name.c_str(), p.name.size(), &name);
    napi_set_element(env, names, static_cast<uint32_t>(i), name);
    rows.push_back(static_cast<double>(p.rows));
    columns.push_back(static_cast<double>(p.columns));
    offsets.push_back(static_cast<double>(p.offset));
  }
  napi_set_named_property(env, result, "names", names);
  napi_set_named_property(env, result, "rows", number_array(env, rows));
  napi_set_named_property(env, result, "columns", number_array(env, columns));
  napi_set_named_property(env, result, "offsets", number_array(env, offsets));
  napi_set_named_property(env, result, "count", to_number(env, static_cast<double>(l.count)));
  napi_set_named_property(env, result, "parameterCount",
                          to_number(env, static_cast<double>(l.parameter_count)));
  return result;
}

/* engineActivationBytes(config, tokens, keep): number; keep as in model::Keep */
napi_value activation_bytes(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const model::Config config = read_config(&args, 0);
  const double tokens = args.number(1), keep = args.number(2);
  if (!args.valid()) return to_number(env, -1);
  const int64_t floats = model::activation_floats(config, static_cast<int64_t>(tokens),
                                                  static_cast<model::Keep>(static_cast<int>(keep)));
  return to_number(env, static_cast<double>(floats) * sizeof(float));
}

}  // namespace

void init_engine_shape(napi_env env, napi_value exports) {
  define(env, exports, "engineLayout", layout);
  define(env, exports, "engineActivationBytes", activation_bytes);
}

}  // namespace rlsd::addon
