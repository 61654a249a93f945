/* The process's backends: the CPU's, and those opened by absolute path. A library is opened once and never closed:
 * its threads and its static state may outlive any caller. */
#include "napi/backends.h"

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

#include "cpu/backend_cpu.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"
#include "napi/addon_data.h"
#include "napi/args.h"
#include "system/library.h"

namespace rlsd::addon {
namespace {

constexpr int32_t kMaxBackends = 8;

struct Registry {
  std::mutex mutex;
  std::atomic<int32_t> count{1}; /* tables below it are complete: readers take no lock */
  const rlsd_backend_v1* tables[kMaxBackends] = {cpu::backend()};
  std::string paths[kMaxBackends];
};

Registry& registry() {
  static Registry* const instance = new Registry();
  return *instance;
}

/* Index of the backend, or -1 with `error` set. */
int32_t load(const char* path, std::string* error) {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  for (int32_t i = 1; i < r.count; ++i) {
    if (r.paths[i] == path) return i;
  }
  if (r.count == kMaxBackends) {
    *error = "Too many backends are loaded.";
    return -1;
  }
  void* const library = open_library(path, error);
  if (library == nullptr) return -1;
  const auto get = reinterpret_cast<rlsd_backend_get_fn>(find_symbol(library, "rlsd_backend_get"));
  if (get == nullptr) {
    *error = std::string(path) + " does not export rlsd_backend_get.";
    return -1;
  }
  const rlsd_backend_v1* table = get(RLSD_ABI_VERSION);
  if (table == nullptr || table->abi_version != RLSD_ABI_VERSION || table->struct_size < sizeof(rlsd_backend_v1)) {
    *error = std::string(path) + " does not serve ABI version " + std::to_string(RLSD_ABI_VERSION) + ".";
    return -1;
  }
  r.paths[r.count] = path;
  r.tables[r.count] = table;
  return r.count++;
}

/* loadBackend(path): index >= 1, or -1 and lastError() */
napi_value load_backend(napi_env env, napi_callback_info info) {
  size_t argc = 1, length = 0;
  napi_value argument;
  char path[4096];
  napi_get_cb_info(env, info, &argc, &argument, nullptr, nullptr);
  if (argc != 1 || napi_get_value_string_utf8(env, argument, path, sizeof(path), &length) != napi_ok) {
    remember_error(env, "Expected the path of a backend library.", -1, 0);
    return to_number(env, -1);
  }
  std::string error;
  const int32_t index = load(path, &error);
  if (index < 0) remember_error(env, error.c_str(), -1, 0);
  return to_number(env, index);
}

struct EntryName {
  const char* name;
  size_t offset;
};

#define RLSD_ENTRY(field) {#field, offsetof(rlsd_backend_v1, field)}
constexpr EntryName kEntries[] = {
    RLSD_ENTRY(policy_loss),     RLSD_ENTRY(token_log_probs),    RLSD_ENTRY(distill_loss),
    RLSD_ENTRY(embedding),       RLSD_ENTRY(rms_norm),           RLSD_ENTRY(rope),
    RLSD_ENTRY(attention),       RLSD_ENTRY(attention_decode),   RLSD_ENTRY(glu),
    RLSD_ENTRY(residual_add),    RLSD_ENTRY(matmul),             RLSD_ENTRY(convert),
    RLSD_ENTRY(embedding_backward), RLSD_ENTRY(rms_norm_backward), RLSD_ENTRY(attention_backward),
    RLSD_ENTRY(glu_backward),    RLSD_ENTRY(bias_backward),      RLSD_ENTRY(adamw),
    RLSD_ENTRY(squared_norm),    RLSD_ENTRY(scale),              RLSD_ENTRY(sample),
};
#undef RLSD_ENTRY

/* describeBackend(index): { name, abiVersion, threads, bf16Products, entries: { [name]: boolean } } or undefined */
napi_value describe_backend(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argument, result, entries, value;
  int32_t index = -1;
  napi_get_undefined(env, &result);
  napi_get_cb_info(env, info, &argc, &argument, nullptr, nullptr);
  if (argc != 1 || napi_get_value_int32(env, argument, &index) != napi_ok) return result;
  const rlsd_backend_v1* table = backend_at(index);
  if (table == nullptr) return result;
  napi_create_object(env, &result);
  napi_create_object(env, &entries);
  for (const EntryName& entry : kEntries) {
    void* pointer;
    std::memcpy(&pointer, reinterpret_cast<const char*>(table) + entry.offset, sizeof(pointer));
    napi_get_boolean(env, pointer != nullptr, &value);
    napi_set_named_property(env, entries, entry.name, value);
  }
  napi_create_string_utf8(env, table->name, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, result, "name", value);
  napi_set_named_property(env, result, "abiVersion", to_number(env, table->abi_version));
  napi_set_named_property(env, result, "threads", to_number(env, index == 0 ? cpu::pool_size() : 0));
  napi_get_boolean(env, (table->matmul_types >> RLSD_BF16 & 1u) != 0, &value);
  napi_set_named_property(env, result, "bf16Products", value);
  napi_set_named_property(env, result, "entries", entries);
  return result;
}

napi_value to_text(napi_env env, const char* words) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, words, NAPI_AUTO_LENGTH, &value);
  return value;
}

/* undefined where a setting of the environment was taken, and else what it says */
napi_value to_refused(napi_env env, const char* words) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return *words == '\0' ? value : to_text(env, words);
}

/* refusedThreads(): what RLSD_NUM_THREADS says where that is no number of threads */
napi_value refused_threads(napi_env env, napi_callback_info) {
  return to_refused(env, cpu::thread_choice().refused);
}

/* instructionSets(): [chosen, [those that this processor has, the widest first], refused or undefined] */
napi_value instruction_sets(napi_env env, napi_callback_info) {
  const cpu::IsaChoice& c = cpu::isa_choice();
  napi_value result, sets;
  napi_create_array_with_length(env, 3, &result);
  napi_create_array(env, &sets);
  uint32_t count = 0;
  for (const cpu::Isa set : {cpu::Isa::kAvx512, cpu::Isa::kAvx2, cpu::Isa::kPortable}) {
    if (set <= c.widest) napi_set_element(env, sets, count++, to_text(env, cpu::isa_name(set)));
  }
  napi_set_element(env, result, 0, to_text(env, cpu::isa_name(c.chosen)));
  napi_set_element(env, result, 1, sets);
  napi_set_element(env, result, 2, to_refused(env, c.refused));
  return result;
}

}  // namespace

const rlsd_backend_v1* backend_at(int32_t index) {
  const Registry& r = registry();
  return index >= 0 && index < r.count ? r.tables[index] : nullptr;
}

void init_backends(napi_env env, napi_value exports) {
  define(env, exports, "loadBackend", load_backend);
  define(env, exports, "describeBackend", describe_backend);
  define(env, exports, "instructionSets", instruction_sets);
  define(env, exports, "refusedThreads", refused_threads);
}

}  // namespace rlsd::addon
